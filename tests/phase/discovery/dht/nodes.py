"""What the tests of DHT nodes share: an announcement, a search, and nodes that lie."""

import asyncio
import os
import time
from collections.abc import Callable

from fixtures.hostile.dht import Liar, liar
from phase.discovery.dht import announcement
from phase.discovery.dht.announcement import Announcement
from phase.discovery.dht.node import Dht
from phase.identity import Identity

PLACE = announcement.key("stable", "x86_64")


def signed(host: str, port: int = 8080, *, seed: int = 1, now: float | None = None) -> bytes:
    return announcement.sign(
        Identity.from_seed(seed.to_bytes(32)),
        channel="stable",
        arch="x86_64",
        host=host,
        port=port,
        version=7,
        now=time.time() if now is None else now,
    )


async def found(one: Dht) -> list[Announcement]:
    said: list[Announcement] = []
    await one.look(PLACE, said.append)
    return said


async def settled(nodes: list[Dht]) -> None:
    """Until all greetings are done, so that everybody knows whom it has met."""
    while any(one._greeted for one in nodes):
        await asyncio.sleep(0.02)


async def until(done: Callable[[], bool]) -> None:
    """Until something is so, which may never be: the test's own limit ends that."""
    while not done():
        await asyncio.sleep(0.01)


async def asked_back(first: Dht, evil: Liar) -> None:
    """Until a node has pinged who wanted something kept, has asked for it, and has decided."""
    await until(lambda: evil.asked == 2 and not first._storing)


async def lie(host: str, **answers: object) -> tuple[Liar, tuple[str, int]]:
    return await liar(host, 0, PLACE[:19] + bytes((PLACE[19] ^ 1,)), **answers)


def endless(arguments: list[bytes]) -> list[tuple[bytes, str, int]]:
    """Nodes that are nearer each time, and none of them there."""
    return [(PLACE[:10] + os.urandom(10), f"127.9.{os.urandom(1)[0]}.{n + 1}", 9) for n in range(20)]
