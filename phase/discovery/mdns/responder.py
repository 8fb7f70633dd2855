"""Advertises a provider on every interface that leads to it, and follows changes of the interfaces."""

import asyncio
import contextlib
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import NamedTuple

from phase.discovery.interfaces import Interface, Ip, Watch, interfaces
from phase.discovery.mdns import wire
from phase.discovery.mdns.claims import Claims, Offered, claims
from phase.discovery.mdns.link import Link, Progress, State
from phase.discovery.mdns.wire import SERVICE_NAME, Name, Record
from phase.discovery.records import DiscoveryError

_log = logging.getLogger(__name__)
#: Seconds for an interface to settle once it changes, and between two checks without notice of changes.
_SETTLE_SECONDS, POLL_SECONDS = 0.1, 2.0
#: Seconds between two checks with notice of changes, since a notice may be lost.
_LOOK_SECONDS = 30.0
#: Names that are tried one after the other, before a random one.
QUICK_NAMES = 5
#: Seconds after which a lost name is forgotten.
_FORGET_SECONDS = 300.0
#: Limits for other providers that are remembered: in all, from one sender, and seconds.
MAX_SEEN, _MAX_SEEN_OF_TELLER, _SEEN_SECONDS = 64, 8, 4500
_MAX_SAID = 256

#: Chooses the addresses to announce on each interface; interfaces that are left out are not used.
Chooser = Callable[[list[Interface]], dict[int, Sequence[Ip]]]


class Told(NamedTuple):
    """The state on one interface.

    Attributes:
        name: of the interface.
        addresses: announced there.
        state: whether it answers there, or why not.
    """

    name: str
    addresses: tuple[str, ...]
    state: State


class Responder:
    """One provider in multicast DNS, in a running event loop.

    Args:
        port: TCP port that it serves on.
        identity: eight characters that tell it from others.
        choose: chooses the addresses to announce on each interface.
        changed: called when one of the public properties has changed.
        service: what its offers are instances of.
    """

    def __init__(
        self,
        *,
        port: int,
        identity: str,
        choose: Chooser,
        changed: Callable[[], None] = lambda: None,
        service: Name = SERVICE_NAME,
    ) -> None:
        self.claims: Claims = claims((), port=port, identity=identity, service=service)
        self._service = service
        self._offers: tuple[Offered, ...] = ()
        self._port, self._identity = port, identity
        self._choose = choose
        self._changed = changed
        self._links: dict[int, Link] = {}
        self._attempt, self._lost, self._lost_at = 1, 0, -1e9
        self._conflict = self._trouble = ""
        #: Whether names are used without probing, since another machine claims all of them.
        self.insists = False
        #: Other providers: until when they count, and the sender that told of them.
        self._seen: OrderedDict[str, tuple[float, Ip]] = OrderedDict()
        #: Own records by name and type: an echo of one is not another machine's record.
        self._said: OrderedDict[tuple[Name, int, bytes], None] = OrderedDict()

    @property
    def told(self) -> list[Told]:
        """The state on each interface."""
        return [
            Told(link.interface.name, tuple(str(ip) for ip in link.ips), link.state)
            for link in self._links.values()
        ]

    @property
    def instances(self) -> list[str]:
        """The names that are answered for at this moment."""
        told = {
            name for link in self._links.values() if link.answering for name, _ in link.answering.instances
        }
        return sorted(wire.text(name) for name in told)

    @property
    def problem(self) -> str:
        """Why no question is answered; empty if one interface answers or will soon."""
        if self._conflict or self._answers:
            return self._conflict
        if self._trouble or any(link.state.well for link in self._links.values()):
            return self._trouble
        states = [f"{link.interface.name}: {link.state}" for link in self._links.values()]
        return "; ".join(states[:4]) or "no network interface to answer on"

    @property
    def starting(self) -> bool:
        """Whether no interface answers yet, but one will soon."""
        return not self.problem and not self._answers

    @property
    def _answers(self) -> bool:
        return any(link.state.progress is Progress.ANSWERING for link in self._links.values())

    @property
    def seen(self) -> set[str]:
        """Other providers at this moment."""
        now = monotonic()
        return {name for name, (until, _) in self._seen.items() if until > now}

    def offer(self, offers: Iterable[Offered]) -> None:
        """Advertise these from now on."""
        offers = tuple(offers)
        if offers != self._offers:
            self._offers = offers
            self._claim_anew()

    async def run(self, look: Callable[[], None], every: float) -> None:
        """Advertise until cancelled; then say goodbye.

        Args:
            look: called now and then, for example to check for new offers.
            every: seconds between two calls of it.
        """
        watch, event = Watch(), asyncio.Event()
        loop = asyncio.get_running_loop()
        descriptor = watch.fileno()

        def changed() -> None:
            if watch.changed():
                event.set()

        if descriptor is not None:
            loop.add_reader(descriptor, changed)
        followed = -_LOOK_SECONDS
        try:
            while True:
                look()
                for link in self._links.values():
                    link.check()
                # The cause of a hindrance, such as a port in use, ends without a notice.
                well = descriptor is not None and all(link.state.well for link in self._links.values())
                again = followed + (_LOOK_SECONDS if well else POLL_SECONDS)
                if event.is_set() or loop.time() >= again:
                    event.clear()
                    await self._follow()
                    followed = loop.time()
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(every, max(again - loop.time(), 0.0))):
                        await event.wait()
                        await asyncio.sleep(_SETTLE_SECONDS)
        finally:
            if descriptor is not None:
                loop.remove_reader(descriptor)
            watch.close()
            links, self._links = list(self._links.values()), {}
            for link in links:
                await link.close(goodbye=True)

    def is_own(self, record: Record) -> bool:
        """Whether this provider has sent this record."""
        return record.key in self._said

    def lost(self, claimed: Claims, record: Record, teller: Ip) -> None:
        """Another machine has one of the names: try others, and at last a random one.

        A machine that claims the random name too claims every name. To give way without end (RFC 6762,
        section 8.1) would let one liar stop every boot. A seed reads all records of a name, so it hears
        both.
        """
        if claimed != self.claims:
            return
        now = monotonic()
        self._lost = 1 if now - self._lost_at > _FORGET_SECONDS else self._lost + 1
        self._lost_at = now
        self._attempt += 1
        self._conflict = f"{teller} says that the name {wire.text(record.name)} is its own"
        if self._lost >= QUICK_NAMES:
            self.insists = True
            self._attempt = secrets.randbelow(1 << 32) + QUICK_NAMES
            self._conflict += f", after {self._lost - 1} others; a random one is answered for without asking"
        self._claim_anew()
        _log.warning("%s; the next is %s", self._conflict, wire.text(self.claims.host))
        self._changed()

    def heard(self, name: Name, ttl: int, teller: Ip) -> None:
        """Another provider is there, or has gone."""
        text = wire.text(name)[:255]
        if not ttl:
            if self._seen.pop(text, None) is not None:
                self._changed()
            return
        now = monotonic()
        if text not in self._seen:
            for gone in [each for each, (until, _) in self._seen.items() if until <= now]:
                del self._seen[gone]
            # A sender that tells of many providers must not crowd out the others.
            of = sum(other == teller for _, other in self._seen.values())
            if of >= _MAX_SEEN_OF_TELLER or len(self._seen) >= MAX_SEEN:
                return
        self._seen[text] = now + min(ttl, _SEEN_SECONDS), teller
        self._changed()

    def _claim_anew(self) -> None:
        self.claims = claims(
            self._offers,
            port=self._port,
            identity=self._identity,
            attempt=self._attempt,
            service=self._service,
        )
        for link in self._links.values():
            self._remember(link.ips)
            link.follow(link.interface, link.ips)

    def _remember(self, ips: Sequence[Ip]) -> None:
        for record in self.claims.all(ips):
            self._said[record.key] = None
            self._said.move_to_end(record.key)
        while len(self._said) > _MAX_SAID + 8 * len(self.claims.instances):
            self._said.popitem(last=False)

    async def _follow(self) -> None:
        """Keep a link for each interface that leads here, with its addresses."""
        try:
            here = {each.number: each for each in interfaces()}
            self._trouble = ""
        except DiscoveryError as error:
            self._trouble = str(error)
            self._changed()
            return
        chosen = self._choose(list(here.values()))
        for index in [index for index in self._links if index not in chosen]:
            await self._links.pop(index).close(goodbye=True)
        for index, ips in chosen.items():
            self._remember(ips)
            link = self._links.get(index)
            if link is None:
                self._links[index] = Link(here[index], ips, self, self._link_changed)
            elif (link.interface, link.ips) != (here[index], tuple(ips)) or not link.state.well:
                link.follow(here[index], ips)
        self._changed()

    def _link_changed(self) -> None:
        if self._answers and not self.insists:
            self._conflict = ""
        self._changed()
