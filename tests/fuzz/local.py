"""Targets for what comes from the local network and from clients: multicast DNS and Host headers."""

import asyncio
import ipaddress
from queue import SimpleQueue

from phase.discovery.interfaces import Interface, Ip
from phase.discovery.mdns import browser, wire
from phase.discovery.mdns.browser import MAX_LATER, Reader
from phase.discovery.mdns.claims import Claims, Offer, claims
from phase.discovery.mdns.link import Link
from phase.discovery.mdns.sockets import PORT, Datagram
from phase.discovery.mdns.wire import Name, Record
from phase.discovery.records import Heard
from phase.fetch import http
from phase.provider import ipxe

#: An interface with both IP versions (RFC 5737, RFC 3849), and the machine that speaks on it.
CARD = Interface(
    2, "eth0", (ipaddress.ip_interface("192.0.2.1/24"), ipaddress.ip_interface("2001:db8::1/64"))
)
TELLER = ipaddress.ip_address("192.0.2.9")
OWN = claims([Offer("stable", "x86_64", 3)], port=8080, identity="0123abcd")
THEIRS = claims([Offer("stable", "x86_64", 3)], port=8080, identity="feedbeef")


def heard(data: bytes) -> None:
    """An answer of multicast DNS, at a machine that looks for providers."""
    queue: SimpleQueue[Heard] = SimpleQueue()
    reader = Reader("stable", "x86_64", queue)
    reader.here = {CARD.number: CARD}
    for number in (CARD.number, 99):
        reader.read(Datagram(data, TELLER, PORT, number, False))
    assert queue.qsize() <= browser.MAX_WAITING
    assert len(reader.later) <= MAX_LATER
    while not queue.empty():
        http.parse_url(queue.get().provider.url)
    for questions in reader.missing(1e12).values():
        assert wire.parse(wire.query(questions)) is not None


class Silent:
    """A speaker that remembers how much it would have said."""

    def __init__(self) -> None:
        self.said = 0
        self.socket = self

    def answer(self, answers: list[Record], additionals: list[Record], *, alone: bool) -> None:
        """As a speaker's."""
        self.said += sum(map(len, wire.responses(answers, additionals)))

    def send(self, data: bytes, to: Ip, port: int) -> None:
        """As a socket's."""
        self.said += len(data)


class Owner:
    """Has the names that are asked about."""

    insists = False

    claims: Claims = OWN

    def is_own(self, record: Record) -> bool:
        """As a responder's."""
        return record.key in {each.key for each in OWN.all([CARD.addresses[0].ip])}

    def lost(self, claims: Claims, record: Record, teller: Ip) -> None:
        """As a responder's."""

    def heard(self, name: Name, ttl: int, teller: Ip) -> None:
        """As a responder's."""
        assert wire.text(name).isprintable()


def asked(data: bytes) -> None:
    """A packet of multicast DNS, at a provider that has its names and at one that probes for them."""

    async def take() -> None:
        for told, probing in ((OWN, None), (None, OWN)):
            link = Link(CARD._replace(multicast=False), [CARD.addresses[0].ip], Owner(), lambda: None)
            link._told, link._probing, link._told_ips = told, probing, (CARD.addresses[0].ip,)
            speaker = Silent()
            for port, unicast in ((PORT, False), (PORT, True), (4000, True)):
                heard = Datagram(data, TELLER, port, CARD.number, unicast)
                link.read(heard, speaker)  # type: ignore[arg-type]  # has the two methods that are called
            assert speaker.said <= 6 * wire.MAX_SENT
            await link.close(goodbye=False)

    asyncio.run(take())


def host(data: bytes) -> None:
    """The Host header of a request for a script that firmware runs."""
    text = data.decode("latin-1")
    if ipxe.is_host(text):
        assert len(text) < 300
        assert not set(text) & set(" \t\r\n|&;${}()<>'\"`\\/#?@,\0")
        http.parse_url(f"http://{text}")


def packets() -> tuple[bytes, ...]:
    """Packets that providers and those who look for them send."""
    questions = [wire.Question(name, wire.PTR) for name in (wire.SERVICE_NAME, wire.META_NAME)]
    questions += [wire.Question(name, wire.ANY) for name in OWN.unique]
    ips = [ipaddress.ip_address("192.0.2.9"), ipaddress.ip_address("2001:db8::9")]
    return (wire.query(questions), *wire.responses(THEIRS.all(ips)), *wire.responses(OWN.all(ips)))
