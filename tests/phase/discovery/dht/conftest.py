"""Real nodes on loopback, each a host of its own: 127.0.0.0/8 has enough addresses."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest

from phase.discovery.dht import Dht

Start = Callable[..., Awaitable[tuple[Dht, tuple[str, int]]]]


@pytest.fixture
def net() -> str:
    """The first three numbers of addresses that no other test uses at this time."""
    return f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(256)}"


@pytest.fixture
async def start(net: str) -> AsyncIterator[Start]:
    """Start a node on `net.N`; gives it and its address."""
    started: list[Dht] = []

    async def begin(
        number: int, peers: Sequence[tuple[str, int]] = (), *, serves: bool = True
    ) -> tuple[Dht, tuple[str, int]]:
        node = Dht(serves=serves)
        started.append(node)
        host = f"{net}.{number}"
        address = host, await node.start(host, 0)
        if peers:
            assert await node.join(peers)
        return node, address

    yield begin
    for node in started:
        node.close()
