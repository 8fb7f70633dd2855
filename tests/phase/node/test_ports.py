"""A free port of TCP may be taken of UDP, by any program of the host."""

import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from phase.node import daemon
from phase.node.daemon import Options
from phase.peer.errors import PeerError
from tests.phase.node.conftest import NODE, Start


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind(("127.0.0.1", 0))
        yield made


async def test_another_port_is_taken_where_any_will_do(
    taken: socket.socket, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = taken.getsockname()[1]
    opened: list[list[socket.socket]] = []
    both = daemon._both

    def first_the_taken(listen: Sequence[str]) -> tuple[list[socket.socket], tuple[str, ...]]:
        listeners, places = both(listen if opened else [f"127.0.0.1:{number}"])
        opened.append(listeners)
        return listeners, places

    monkeypatch.setattr(daemon, "_both", first_the_taken)
    async with start() as scene:
        asked = Options(tmp_path, ("127.0.0.1:0",))
        listeners, places, transport = await daemon._listening(NODE, asked, scene.daemon)
        await transport.close()
    assert len(opened) == 2
    assert opened[0][0].fileno() == -1
    assert places == (f"127.0.0.1:{listeners[0].getsockname()[1]}",) != (f"127.0.0.1:{number}",)
    listeners[0].close()


async def test_a_port_that_was_named_is_not_replaced(
    taken: socket.socket, start: Start, tmp_path: Path
) -> None:
    place = f"127.0.0.1:{taken.getsockname()[1]}"
    async with start() as scene:
        with pytest.raises(PeerError, match="cannot listen on"):
            await daemon._listening(NODE, Options(tmp_path, (place,)), scene.daemon)
