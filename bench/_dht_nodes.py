"""Honest nodes of both kinds: ours, and those of the library kademlia, which is not changed in any way."""

import logging
import time
from typing import NamedTuple, Protocol

from kademlia.network import Server

from bench._dht_tape import Address, Datagram, Tape, Way, way
from phase.discovery.dht import Dht, announcement
from phase.discovery.dht.announcement import Announcement, AnnouncementError
from phase.identity import Identity

ARCH, PORT = "x86_64", 4000
#: The library says on every lost answer that it is lost.
logging.disable(logging.ERROR)


class Wanted(NamedTuple):
    """What a lookup must bring: the announcement of this channel by this host."""

    channel: str
    host: str

    @property
    def place(self) -> bytes:
        """Where it stands."""
        return announcement.key(self.channel, ARCH)

    def sign(self, host: str = "", *, seed: int = 1, now: float | None = None) -> bytes:
        """The announcement, or one of another host."""
        return announcement.sign(
            Identity.from_seed(seed.to_bytes(32)),
            channel=self.channel,
            arch=ARCH,
            host=host or self.host,
            port=8080,
            version=7,
            now=time.time() if now is None else now,
        )

    def good(self, envelope: object) -> bool:
        """Whether this is it."""
        try:
            assert isinstance(envelope, bytes)
            said = announcement.read(envelope, place=self.place, now=time.time())
        except (AnnouncementError, AssertionError):
            return False
        return said.host == self.host


class Looked(NamedTuple):
    """One lookup.

    Attributes:
        found: whether it brought what was wanted.
        hops: see `bench._dht_tape.Way`.
        messages: datagrams of the asker until it had it.
        all: datagrams of the asker until the lookup ended.
        ms: until it had it.
        whole_ms: until the lookup ended.
    """

    found: bool
    hops: int = 0
    messages: int = 0
    all: int = 0
    ms: float = 0.0
    whole_ms: float = 0.0


class Node(Protocol):
    """A node of either kind."""

    async def start(self, host: str, id_: bytes) -> None:
        """Listen."""

    async def join(self, peers: list[Address]) -> int:
        """Join; returns how many nodes are known."""

    async def publish(self, wanted: Wanted) -> int:
        """Announce; returns how many keep it, as far as that is told."""

    async def look(self, wanted: Wanted, tape: Tape) -> Looked:
        """Look for it."""

    def stop(self) -> None:
        """End without a word."""


class Ours:
    """A node of `phase.discovery.dht`."""

    def __init__(self, *, serves: bool = True) -> None:
        self._dht = Dht(serves=serves)
        self._peers: list[Address] = []

    async def start(self, host: str, id_: bytes) -> None:
        """Listen; it has an id of its own."""
        await self._dht.start(host, PORT)

    async def join(self, peers: list[Address]) -> int:
        """As a provider does."""
        self._peers = peers
        return await self._dht.join(peers)

    async def publish(self, wanted: Wanted) -> int:
        """As a provider does."""
        return await self._dht.tell(wanted.place, wanted.sign, [wanted.host])

    async def look(self, wanted: Wanted, tape: Tape) -> Looked:
        """The whole search; a seed takes the first answer, and goes on for more meanwhile."""
        heard: list[float] = []

        def take(said: Announcement) -> None:
            if said.host == wanted.host and not heard:
                heard.append(time.monotonic())

        with tape.keeping() as kept:
            begun = time.monotonic()
            await self._dht.look(wanted.place, take)
            ended = time.monotonic()
        return _looked(kept, wanted, begun, heard[0] if heard else None, ended)

    def stop(self) -> None:
        """End without a word."""
        self._dht.close()


class Library:
    """A node of the library, with its own defaults."""

    async def start(self, host: str, id_: bytes) -> None:
        """Listen."""
        self._server = Server(node_id=id_)
        await self._server.listen(PORT, host)

    async def join(self, peers: list[Address]) -> int:
        """As its pages say."""
        return len(await self._server.bootstrap(peers))

    async def publish(self, wanted: Wanted) -> int:
        """As its pages say; it does not tell how many keep it."""
        return int(await self._server.set(_name(wanted), wanted.sign()))

    async def look(self, wanted: Wanted, tape: Tape) -> Looked:
        """The library gives one value: of those that came first, the one that came most often."""
        with tape.keeping() as kept:
            begun = time.monotonic()
            value = await self._server.get(_name(wanted))
            ended = time.monotonic()
        return _looked(kept, wanted, begun, ended if wanted.good(value) else None, ended)

    def stop(self) -> None:
        """End without a word."""
        self._server.stop()


def _name(wanted: Wanted) -> str:
    return f"/phase/{wanted.channel}/{ARCH}/manifest"


def _looked(kept: list[Datagram], wanted: Wanted, begun: float, heard: float | None, ended: float) -> Looked:
    whole = 1000 * (ended - begun)
    if heard is None:
        return Looked(False, all=len(kept), whole_ms=whole)
    # None where the asker keeps it itself.
    found = way(kept, wanted.good) or Way(0, 0, begun)
    return Looked(True, found.hops, found.messages, len(kept), 1000 * (heard - begun), whole)
