"""Nodes that are found by what they can do: real DHT nodes, each on an address of its own on loopback."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec
import pytest

from phase.discovery.records import DiscoveryError
from phase.identity import Identity
from phase.peer import publish, records
from phase.peer.publish import Published, find, hosts
from phase.peer.records import Capability
from phase.peer.transport import Address
from phase.provider import announce
from phase.provider.announce import Options
from phase.provider.status import DhtTold

CAN = Capability(arch="arm64", runtimes=("wasi-preview1",), hosts=(), processors=4, memory=512, slots=2)
PORT = 5000


@pytest.fixture
def net() -> str:
    """The first three numbers of addresses that no other test uses at this time."""
    return f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(256)}"


class Node:
    """What a node says of itself, and can be changed."""

    def __init__(self, host: str) -> None:
        self.identity = Identity.ephemeral()
        self.can = CAN
        self.address = Address(self.identity.public_key, (f"{host}:4433",))
        self.told = DhtTold()


@asynccontextmanager
async def publishing(host: str, *peers: tuple[str, int]) -> AsyncIterator[Node]:
    node = Node(host)
    made = Published(node.identity, lambda: node.can, lambda: node.address)
    work = announce.take_part(made.offers, node.told, Options(peers), hosts=[host], port=PORT)
    task = asyncio.create_task(work)
    try:
        yield node
    finally:
        task.cancel()
        await asyncio.wait([task])


async def found(
    *peers: tuple[str, int], arches: tuple[str, ...] = ("x86_64", "arm64"), runtime: str = "wasi-preview1"
) -> list[Capability]:
    """All that one search finds in some seconds."""
    return [each async for each in find(arches, runtime, peers=peers, timeout=3)]


async def until_kept(node: Node) -> None:
    async with asyncio.timeout(20):
        while not node.told.keepers:
            await asyncio.sleep(0.05)


async def test_nodes_are_found_by_what_they_can_do(net: str) -> None:
    first = (f"{net}.1", PORT)
    async with publishing(f"{net}.1"), publishing(f"{net}.2", first) as worker:
        await until_kept(worker)
        said = await found(first)
        assert worker.identity.public_key in {each.key for each in said}
        one = next(each for each in said if each.key == worker.identity.public_key)
        assert one.address == Address(worker.identity.public_key, (f"{net}.2:4433",))
        assert (one.arch, one.processors, one.memory, one.slots) == ("arm64", 4, 512, 2)
        assert one.expires > time.time()
        assert await found(first, arches=("x86_64",)) == []
        assert await found(first, runtime="other") == []


async def test_change_is_published_and_replaces_what_was_said(
    net: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "STEADY_SECONDS", 0.0)
    first = (f"{net}.1", PORT)
    async with publishing(f"{net}.1"), publishing(f"{net}.2", first) as worker:
        await until_kept(worker)
        worker.can = msgspec.structs.replace(CAN, slots=0)
        with suppress(TimeoutError):
            async with asyncio.timeout(20):
                async for each in find(("arm64",), "wasi-preview1", peers=[first], timeout=30):
                    if each.key == worker.identity.public_key and each.slots == 0:
                        return
    raise AssertionError("the change was not found")


async def test_nobody_to_ask_is_told(net: str) -> None:
    with pytest.raises(DiscoveryError, match=f"no DHT node answers at {net}.9:{PORT}"):
        await found((f"{net}.9", PORT))


def test_slots_are_kept_back_and_other_changes_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    can = CAN
    made = Published(Identity.ephemeral(), lambda: can, lambda: Address("ab" * 32, ("192.0.2.1:1",)))
    place = records.key("arm64", "wasi-preview1")
    first = made.offers()[place].mark
    can = msgspec.structs.replace(CAN, slots=0)
    assert made.offers()[place].mark == first
    can = msgspec.structs.replace(CAN, slots=0, memory=1)
    second = made.offers()[place].mark
    assert second != first
    can = msgspec.structs.replace(CAN, slots=1, memory=1)
    assert made.offers()[place].mark == second
    monkeypatch.setattr(publish, "STEADY_SECONDS", 0.0)
    assert made.offers()[place].mark != second


@pytest.mark.parametrize(
    ("known", "first", "said"),
    [
        (("192.0.2.1:4433",), "192.0.2.1", ("192.0.2.1:4433",)),
        (("192.0.2.1:4433",), "198.51.100.7", ("198.51.100.7:4433", "192.0.2.1:4433")),
        (
            ("10.0.0.5:4433", "198.51.100.7:50000", "[2001:db8::1]:4434"),
            "198.51.100.7",
            ("198.51.100.7:50000", "10.0.0.5:4433", "[2001:db8::1]:4434"),
        ),
        (("127.0.0.1:4433",), "192.0.2.1", ("192.0.2.1:4433",)),
        (("[2001:db8::1]:4434",), "192.0.2.1", ("192.0.2.1:4434", "[2001:db8::1]:4434")),
        (
            tuple(f"192.0.2.{n}:1" for n in range(1, 9)),
            "192.0.2.1",
            ("192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1", "192.0.2.4:1"),
        ),
    ],
)
def test_hosts_of_a_record(known: tuple[str, ...], first: str, said: tuple[str, ...]) -> None:
    assert hosts(Address("ab" * 32, known), first) == said
