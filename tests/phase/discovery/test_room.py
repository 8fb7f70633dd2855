"""However much a network tells, there is room for what another one does."""

from collections.abc import Iterable
from queue import SimpleQueue
from time import monotonic
from typing import Literal

import pytest

from phase import discovery
from phase.discovery import MAX_PROVIDERS, Provider
from phase.discovery.records import Heard

Source = Literal["dht", "mdns"]


def _found(heard: Iterable[tuple[str, Source]], *, mdns: bool = True) -> list[str]:
    queue: SimpleQueue[Heard] = SimpleQueue()
    for url, source in heard:
        queue.put(Heard(Provider(url, "stable", "x86_64", None, source, ""), 0))
    sifter = discovery._Sifter(set(), (), mdns=mdns, gather=None)
    return [each.url for each in sifter.sift(discovery._Told(queue, ()), monotonic())]


FAR: list[tuple[str, Source]] = [(f"http://192.0.2.{number}:8080", "dht") for number in range(40)]
NEAR: list[tuple[str, Source]] = [(f"http://10.0.0.{number}:8080", "mdns") for number in range(40)]


def test_sixteen_answers_of_the_dht_leave_room_for_mdns() -> None:
    found = _found([*FAR, *NEAR])
    assert len(found) == MAX_PROVIDERS
    assert found == [url for url, _ in (*FAR[:8], *NEAR[:8])]


def test_where_nobody_nearby_is_asked_the_dht_has_all_the_room() -> None:
    assert _found(FAR, mdns=False) == [url for url, _ in FAR[:MAX_PROVIDERS]]


@pytest.mark.parametrize("source", ["dht", "mdns"])
def test_one_host_is_not_all_there_is(source: Source) -> None:
    many: list[tuple[str, Source]] = [(f"http://192.0.2.1:{port}", source) for port in range(1000, 1040)]
    assert _found([*many, ("http://192.0.2.2:1", source)]) == [
        *(url for url, _ in many[:2]),
        "http://192.0.2.2:1",
    ]
