"""Datagrams and announcements of the DHT."""

import asyncio
from typing import Any

from phase.discovery.dht import announcement
from phase.discovery.dht import wire as dht_wire
from phase.discovery.dht.announcement import AnnouncementError
from phase.discovery.dht.endpoint import Endpoint
from phase.discovery.dht.node import Dht
from phase.fetch import http
from tests.fuzz.metadata import NOW
from tests.fuzz.publishing import short

#: Where its announcements stand in the DHT.
PLACE = announcement.key("stable", "x86_64")


class Cable(asyncio.DatagramTransport):
    """Keeps what an endpoint sends; a question is answered at once, where there is an answer."""

    def __init__(self, endpoint: Endpoint, answer: bytes | None = None) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self._endpoint = endpoint
        self._answer = answer
        endpoint.connection_made(self)

    def sendto(self, data: Any, addr: Any = None) -> None:
        """As asyncio's."""
        self.sent.append(data)
        if self._answer is not None:
            self._endpoint.datagram_received(
                bytes((dht_wire.ANSWER,)) + data[1 : 1 + dht_wire.ID_BYTES] + self._answer, addr
            )

    def is_closing(self) -> bool:
        """As asyncio's."""
        return False

    def close(self) -> None:
        """As asyncio's."""


def dht_datagram(data: bytes) -> None:
    """A datagram from anybody, at a node that serves: it says little, and keeps nothing yet."""

    async def take() -> None:
        node = Dht(serves=True)
        endpoint = node._endpoint
        cable = Cable(endpoint)
        endpoint.datagram_received(data, ("192.0.2.9", 4000))
        answering = list(endpoint._answering)
        for _ in range(4):
            await asyncio.sleep(0)
        for task in answering:
            if task.done():
                task.result()
        node.close()
        # An answer, a question back, a greeting.
        assert len(cable.sent) <= 3
        assert all(len(each) <= 600 for each in cable.sent)
        assert not len(node.held)

    asyncio.run(take())


def dht_answer(data: bytes) -> None:
    """What a node answers to each question there is."""

    async def ask() -> None:
        endpoint = Endpoint(None)
        Cable(endpoint, data)
        node = ("192.0.2.9", 4000)
        found = await endpoint.ask(node, dht_wire.Found, "find_value", PLACE, PLACE, seconds=5)
        nodes = found
        if isinstance(found, dht_wire.Values):
            nodes = found.nodes
            for envelope in found.envelopes:
                announced(envelope)
        for contact in dht_wire.usable(nodes or [], teller=node[0]):
            assert len(contact.id) == dht_wire.ID_BYTES
            assert 0 < contact.port < 65_536
            assert not contact.host.startswith("127.")
        await endpoint.ask(node, dht_wire.Seen, "stun", seconds=5)
        await endpoint.ask(node, bytes, "ping", PLACE, seconds=5)
        await endpoint.ask(node, bool, "store", PLACE, PLACE, b"x", seconds=5)

    if len(data) < dht_wire.MAX_DATAGRAM - dht_wire.ID_BYTES and data:
        asyncio.run(ask())


def announced(data: bytes) -> None:
    """An announcement in the DHT."""
    try:
        said = announcement.read(data, place=PLACE, now=NOW.timestamp())
    except AnnouncementError as error:
        short(error)
    else:
        http.parse_url(said.url)
        assert said.expires > NOW.timestamp()
        assert announcement.key(said.channel, said.arch) == PLACE
