"""`phase peers`: which of the nodes that are heard of are told, and in which order."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from phase.arch import ARCHES
from phase.cli import peers
from phase.discovery import DiscoveryError
from phase.peer import nearby, publish
from phase.peer.records import Capability
from tests.phase.cli.conftest import Inside


def _node(
    letter: str, slots: int, *, seq: int = 0, memory: int = 512, host: str = "192.0.2.1:1"
) -> Capability:
    return Capability(
        key=letter * 64, arch="x86_64", runtimes=("wasi-preview1",), hosts=(host,), processors=4,
        memory=memory, slots=slots, seq=seq, expires=9 if seq else 0,
    )  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the networks say, and what they were asked for."""
    found: dict[str, Any] = {"dht": [], "mdns": []}

    async def dht(arches: Sequence[str], runtime: str, **more: Any) -> AsyncIterator[Capability]:
        found["dht asked"] = (tuple(arches), runtime, more)
        for each in found["dht"]:
            yield each

    async def mdns(arches: Sequence[str], runtime: str, **more: Any) -> AsyncIterator[Capability]:
        found["mdns asked"] = (tuple(arches), runtime, more)
        for each in found["mdns"]:
            yield each

    monkeypatch.setattr(publish, "find", dht)
    monkeypatch.setattr(nearby, "find", mdns)
    return found


def test_a_search_ends_soon_after_it_has_found_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Busy nodes, and those with too little memory, are not enough."""
    monkeypatch.setattr(peers, "OTHERS_SECONDS", 0.0)
    taken: list[str] = []

    async def find(*_: object, **__: object) -> AsyncIterator[Capability]:
        for each in (_node("a", 0), _node("b", 2, memory=1), _node("c", 1), _node("d", 3)):
            taken.append(each.key[0])
            yield each
            await asyncio.sleep(0)
        await asyncio.Event().wait()

    monkeypatch.setattr(publish, "find", find)
    found = peers.search([("127.0.0.1", 1)], "any", "wasi-preview1", 100, 600, enough=2)
    assert [(each.key[0], each.slots) for each in found] == [("d", 3), ("c", 1), ("a", 0)]
    assert taken == ["a", "b", "c", "d"]


def test_a_search_that_fails_says_why(monkeypatch: pytest.MonkeyPatch, inside: Inside) -> None:
    async def find(*_: object, **__: object) -> AsyncIterator[Capability]:
        raise DiscoveryError("no DHT node answers")
        yield

    monkeypatch.setattr(publish, "find", find)
    assert inside("peers", "--dht", "127.0.0.1:1", "--no-mdns") == (1, b"", "phase: no DHT node answers\n")


def test_those_with_most_room_come_first_each_once(inside: Inside, asked: dict[str, Any]) -> None:
    asked["dht"] = [
        _node("b", 2, seq=1),
        _node("a", 0, seq=1),
        _node("a", 2, seq=2),
        _node("d", 9, memory=1),
    ]
    asked["mdns"] = [_node("c", 3), _node("b", 7, host="192.0.2.9:9"), _node("c", 4)]
    done = inside("peers", "--dht", "127.0.0.1:1", "--memory", "100", "--timeout", "3")
    line = "{}@192.0.2.1:1  x86_64  512 MiB  {} free of 4\n"
    lines = "".join(line.format(letter * 64, slots) for letter, slots in (("c", 4), ("a", 2), ("b", 2)))
    assert done == (0, lines.encode(), "")
    assert asked["dht asked"] == (ARCHES, "wasi-preview1", {"peers": (("127.0.0.1", 1),), "timeout": 3.0})
    assert asked["mdns asked"] == (ARCHES, "wasi-preview1", {"timeout": 3.0})


def test_only_those_are_asked_that_may_be(inside: Inside, asked: dict[str, Any]) -> None:
    asked["mdns"] = [_node("a", 1)]
    done = inside("peers", "--arch", "amd64", "--runtime", "wasi-0.2", "--json")
    assert json.loads(done.out) == {
        "node": "a" * 64, "address": f"{'a' * 64}@192.0.2.1:1", "arch": "x86_64",
        "runtimes": ["wasi-preview1"], "processors": 4, "memory": 512, "slots": 1, "expires": 0,
    }  # fmt: skip
    assert asked["mdns asked"] == (("x86_64",), "wasi-0.2", {"timeout": 5.0})
    assert "dht asked" not in asked
    nobody = inside("peers", "--dht", "127.0.0.1:1", "--no-mdns", "--timeout", "0.5")
    assert (nobody.code, nobody.out) == (1, b"")
    assert nobody.err.startswith("phase: no node with wasi-preview1 was found within 0.5 s. Is `phase node`")
    nothing = inside("peers", "--no-mdns")
    assert (nothing.code, "--dht is missing: a node of the DHT to begin with" in nothing.err) == (2, True)


def test_a_record_of_the_dht_counts_more_than_what_was_heard(inside: Inside, asked: dict[str, Any]) -> None:
    asked["dht"] = [_node("a", 1, seq=5)]
    asked["mdns"] = [_node("a", 2)]
    assert b"1 free of 4" in inside("peers", "--dht", "127.0.0.1:1").out
