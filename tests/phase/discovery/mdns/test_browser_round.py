"""What one round of `select` tells the browser, together."""

import selectors
import time
from queue import SimpleQueue
from typing import Any

import pytest

from phase.discovery.interfaces import Watch, interfaces
from phase.discovery.mdns import browser
from phase.discovery.mdns.sockets import Socket


def test_a_socket_that_closes_in_a_round_is_not_read_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card gets another address while an answer comes: the search read a closed socket, and ended."""
    here = [each for each in interfaces() if each.multicast]
    assert here, "this test needs an interface with multicast"
    rounds = []

    class Together(selectors.DefaultSelector):
        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            keys = list(self.get_map().values())
            sockets = [key for key in keys if isinstance(key.data, Socket)]
            if sockets:
                watch = [key for key in keys if isinstance(key.data, Watch)]
                rounds.append((len(watch), len(sockets)))
                here.clear()
                return [(key, selectors.EVENT_READ) for key in watch + sockets]
            return super().select(timeout)

    monkeypatch.setattr(selectors, "DefaultSelector", Together)
    monkeypatch.setattr(browser, "interfaces", lambda: list(here))
    monkeypatch.setattr(Watch, "changed", lambda _: True)
    queue: SimpleQueue[Any] = SimpleQueue()
    search = browser.Browser("stable", "x86_64", queue)
    try:
        until = time.monotonic() + 10
        while not rounds and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.2)
        assert rounds[0][0] == 1
        assert "failed" not in search.problem
    finally:
        search.close()
