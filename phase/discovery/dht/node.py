"""A node of the DHT: knows other nodes, keeps their announcements, and searches."""

import asyncio
import errno
import ipaddress
import os
import random
import socket
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from time import monotonic, time
from typing import Any, Protocol, TypeVar

from phase.discovery.dht import announcement, wire
from phase.discovery.dht.announcement import Announcement, AnnouncementError
from phase.discovery.dht.endpoint import Endpoint
from phase.discovery.dht.holdings import Holdings
from phase.discovery.dht.lookup import Lookup
from phase.discovery.dht.resolve import resolve
from phase.discovery.dht.said import Read, Said
from phase.discovery.dht.table import K, Table
from phase.discovery.dht.wire import Contact
from phase.discovery.interfaces import source
from phase.discovery.records import DiscoveryError

#: Nodes that one lookup asks at the same time (alpha in the paper).
ALPHA = 3
#: Limits for the envelopes that one search checks: in all, and from one host.
_MAX_CHECKED, _MAX_CHECKED_OF_HOST = 128, 8
#: Limits for the envelopes and nodes in one answer. A search asks many nodes, which give different ones.
_ANSWER_VALUES, _ANSWER_NODES = 8, 8
#: Limits for unknown nodes that are pinged at the same time: in all, and of one host; and for announcements
#: that wait for a check of their sender.
_MAX_GREETED, _MAX_GREETED_OF_HOST, _MAX_STORING = 16, 2, 32
#: Limit for the own addresses that a node announces.
_MAX_OWN = 8
#: Seconds for which a node that has answered counts as present, and how many are remembered.
_SEEN_SECONDS, _MAX_SEEN = 120.0, 1024
#: Seconds after which a lookup asks another node beside one that does not answer; limit for its questions
#: that wait for an answer.
_SLOW_SECONDS, _MAX_WAITING = 0.3, 9
#: Seconds to wait for other nodes once one has answered.
_OTHERS_SECONDS = 0.5
#: Seconds to wait for an answer of the asker, if our answer is long and its address is not proven.
_PROVE_SECONDS = 0.4


_S = TypeVar("_S", bound=Said)
_S_co = TypeVar("_S_co", bound=Said, covariant=True)

#: Takes the host and the values of an answer; returns whether one of the values is good.
_Take = Callable[[str, Sequence[bytes]], bool]


class _ReadSome(Protocol[_S_co]):
    def __call__(self, envelope: bytes, *, place: bytes, now: float) -> _S_co: ...


class Dht:
    """One node.

    Args:
        serves: answer others and keep their announcements. A node that does not is never in their tables.
        clock: seconds since the epoch.
        read: checks an envelope: what is kept for others.
    """

    def __init__(
        self, *, serves: bool, clock: Callable[[], float] = time, read: Read = announcement.read
    ) -> None:
        self.id = os.urandom(wire.ID_BYTES)
        self.held = Holdings(read)
        #: This node's own announcements, by place and by the announced address.
        self.own: dict[bytes, dict[str, bytes]] = {}
        #: This machine's addresses with their networks: a node on one of them gets that address.
        self.networks: list[ipaddress.IPv4Interface] = []
        #: The address that another node sees this node at, by the address of that other node.
        self._seen_by: dict[str, str] = {}
        self._clock = clock
        self._serves = serves
        self._endpoint = Endpoint(self._answer if serves else None)
        self._table = Table(self.id)
        self._greeted: dict[tuple[str, int], asyncio.Task[Contact | None]] = {}
        self._storing: set[str] = set()
        #: When each address has answered.
        self._seen: OrderedDict[tuple[str, int], float] = OrderedDict()

    async def start(self, bind: str, port: int, *, given: socket.socket | None = None) -> int:
        """Listen.

        Args:
            bind: IPv4 address.
            port: UDP; 0 for any.
            given: a socket that is bound already, in place of both; stays the caller's.

        Returns:
            The port.

        Raises:
            DiscoveryError: it cannot be listened on.
        """
        try:
            loop = asyncio.get_running_loop()
            if given is not None:
                # Another descriptor: the loop closes its own, and a node that failed is started again.
                transport, _ = await loop.create_datagram_endpoint(lambda: self._endpoint, sock=given.dup())
            else:
                transport, _ = await loop.create_datagram_endpoint(
                    lambda: self._endpoint, local_addr=(bind, port), family=socket.AF_INET
                )
        except OSError as error:
            refused = error.errno in (errno.EACCES, errno.EPERM)
            raise DiscoveryError(
                f"UDP port {port} cannot be listened on: {error.strerror or error}",
                hint=f"Ports below 1024 need root, or a socket of systemd: ListenDatagram=0.0.0.0:{port}."
                if refused
                else "",
            ) from error
        host, number = transport.get_extra_info("sockname")[:2]
        if self._serves:
            # What other nodes see corrects it, see `join`.
            self._move(source() if host == "0.0.0.0" else host)  # noqa: S104
        return int(number)

    def _move(self, host: str) -> None:
        """Take an id that belongs to an address; others look first to such nodes."""
        known = self.known
        self.id = wire.id_at(host)
        self._table = Table(self.id)
        for each in known:
            self._table.add(each)

    def close(self) -> None:
        """Leave. Announcements that others keep expire."""
        for task in self._greeted.values():
            task.cancel()
        self._endpoint.close()

    @property
    def known(self) -> list[Contact]:
        """The nodes in the table, each seen to answer."""
        return list(self._table)

    async def join(self, peers: Iterable[tuple[str, int]]) -> int:
        """Get to know other nodes, also those near to this node.

        Args:
            peers: as for `reach`.

        Returns:
            How many nodes are known.
        """
        if await self.reach(peers):
            views = await self._views() if self._serves else Counter()
            # Of several addresses here any will do, as long as some node sees it.
            if views and not any(Contact(self.id, host, 0).bound for host in views):
                self._move(views.most_common(1)[0][0])
            await self._search(self.id)
        return len(self.known)

    async def reach(self, peers: Iterable[tuple[str, int]]) -> int:
        """Get to know other nodes, which is enough to search.

        Args:
            peers: hosts and ports to begin with; names are looked up.

        Returns:
            How many nodes are known. After the first answer, the others get a short time more.
        """

        async def greet(host: str, port: int) -> bool:
            addresses = await resolve(host, port)
            found = [await self._greet(address, tries=3) for address in addresses]
            return any(found)

        waiting = {asyncio.ensure_future(greet(*peer)) for peer in peers}
        patience: float | None = None
        try:
            while waiting:
                done, waiting = await asyncio.wait(
                    waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    break
                if any(task.result() for task in done):
                    patience = _OTHERS_SECONDS
        finally:
            for task in waiting:
                task.cancel()
        return len(self.known)

    async def seen_as(self) -> str | None:
        """The address that most of five other nodes see this one at; None if none of them says."""
        votes = await self._views()
        return votes.most_common(1)[0][0] if votes else None

    async def _views(self) -> Counter[str]:
        """The addresses that up to five other nodes see this one at, and how many see each."""
        known = self.known
        asked = random.sample(known, min(len(known), 5))
        said = await asyncio.gather(
            *(self._endpoint.ask((one.host, one.port), wire.Seen, "stun") for one in asked)
        )
        return Counter(each[0] for each in said if each is not None and announcement.is_unicast(each[0]))

    async def announce(self, place: bytes, envelope: bytes) -> int:
        """Let the nodes that are nearest to a place keep an announcement of this node.

        Returns:
            How many others keep it.
        """
        return await self.tell(place, lambda host: envelope, [""], fixed="")

    async def tell(
        self, place: bytes, sign: Callable[[str], bytes], hosts: Sequence[str], *, fixed: str | None = None
    ) -> int:
        """Let other nodes keep announcements of this node, each with the address that the keeper sees.

        Args:
            place: 20 bytes.
            sign: makes the announcement of one address.
            hosts: addresses for own answers, if no node keeps any; the first is for nodes outside this
                machine's networks.
            fixed: an address to announce to all, in place of the address that each sees.

        Returns:
            How many others keep one.
        """
        own = self.own[place] = {host: sign(host) for host in hosts[:_MAX_OWN]}
        nearest = await self._search(place)

        async def store(one: Contact) -> bool:
            address = one.host, one.port
            host = fixed
            if host is None:
                seen = await self._endpoint.ask(address, wire.Seen, "stun")
                host = seen[0] if seen is not None else None
                if host is None or not announcement.is_unicast(host):
                    return False
            if host not in own and len(own) >= 2 * _MAX_OWN:
                return False
            envelope = own[host] if host in own else own.setdefault(host, sign(host))
            self._seen_by[one.host] = host
            # The keeper asks back before it keeps it.
            said = await self._endpoint.ask(address, bool, "store", self.id, place, envelope, seconds=3.0)
            return said is True

        self._seen_by.clear()
        return sum(await asyncio.gather(*(store(one) for one in nearest)))

    async def look(self, place: bytes, found: Callable[[Announcement], None]) -> None:
        """Search a place for announcements; see `look_for`."""
        await self.look_for(place, announcement.read, found)

    async def look_for(self, place: bytes, read: "_ReadSome[_S]", found: Callable[[_S], None]) -> None:
        """Search a place until the nearest nodes have answered, and further while there is no record.

        Args:
            place: 20 bytes.
            read: checks an envelope.
            found: called with each valid record as soon as it arrives. Its content is still only a claim.
        """
        checked: set[bytes] = set()
        told: Counter[str] = Counter()

        def take(teller: str, values: Sequence[bytes]) -> bool:
            good = False
            for envelope in values:
                if envelope in checked:
                    continue
                if len(checked) >= _MAX_CHECKED or told[teller] >= _MAX_CHECKED_OF_HOST:
                    break
                checked.add(envelope)
                told[teller] += 1
                try:
                    said = read(envelope, place=place, now=self._clock())
                except AnnouncementError:
                    continue
                if announcement.is_near(said.host) and not announcement.is_near(teller):
                    continue  # a node elsewhere cannot know an address on this machine or this link
                good = True
                found(said)
            return good

        await self._search(place, take)

    async def _search(self, place: bytes, take: _Take | None = None) -> list[Contact]:
        """Ask the known nodes, then the nearest nodes that those name, until none is left to ask.

        Args:
            place: 20 bytes.
            take: called with the host and the values of an answer; whether one of them is good. Without it,
                nodes are searched alone.

        Returns:
            The nearest nodes that have answered.
        """
        question = "find_value" if take else "find_node"
        lookup = Lookup(place, self._table.near(place), own=self.id, nearest_only=take is None)

        async def ask(one: Contact) -> tuple[Contact, Any]:
            return one, await self._endpoint.ask((one.host, one.port), wire.Found, question, self.id, place)

        running: dict[asyncio.Task[tuple[Contact, Any]], float] = {}
        try:
            while True:
                slow = monotonic() - _SLOW_SECONDS
                room = min(
                    ALPHA - sum(begun > slow for begun in running.values()), _MAX_WAITING - len(running)
                )
                while room > 0 and (chosen := lookup.choose()) is not None:
                    running[asyncio.ensure_future(ask(chosen))] = monotonic()
                    room -= 1
                if not running:
                    return lookup.nearest
                done, _ = await asyncio.wait(
                    running, timeout=_SLOW_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    del running[task]
                    self._told(lookup, *task.result(), take)
        finally:
            for task in running:
                task.cancel()

    def _told(self, lookup: Lookup, one: Contact, said: Any, take: _Take | None) -> None:
        """Take the answer of a node that a lookup has asked; None if there was none."""
        if said is None:
            lookup.silent(one)
            self._table.drop(one)
            return
        if one.bound:
            # Its address proves the id, as far as that matters: no need to ask for it. Nor is it a reason to
            # ping others: a lookup finds those out that have gone.
            self._keep(one)
        else:
            self._meet((one.host, one.port))
        if isinstance(said, wire.Values):
            if take is not None and take(one.host, said.envelopes):
                lookup.nearest_only = True
            said = said.nodes
        lookup.answered(one, said)

    async def _answer(self, sender: tuple[str, int], name: str, arguments: list[bytes]) -> object:
        if name == "stun":
            return sender
        if not arguments or any(len(each) != wire.ID_BYTES for each in arguments[:2]):
            return None
        self._meet(sender)
        # The greeting goes first: an answer may use up all that may be sent to an unproven address.
        await asyncio.sleep(0)
        match name, len(arguments):
            case "ping", 1:
                return self.id
            case "find_node", 2:
                return await self._fitting(sender, self._neighbours(arguments[1], sender, K))
            case "find_value", 2:
                values = self._values(arguments[1], sender)
                nodes = self._neighbours(arguments[1], sender, _ANSWER_NODES if values else K)
                return await self._fitting(sender, wire.Values(values, nodes) if values else nodes)
            case "store", 3:
                return await self._store(sender, arguments[1], arguments[2])
        return None

    async def _fitting(
        self, sender: tuple[str, int], said: "wire.Values | list[tuple[bytes, str, int]]"
    ) -> object:
        """An answer, or the part of it that may go to an unproven address."""
        if not self._endpoint.fits(sender, said):
            greeting = self._meet(sender)
            if greeting is not None:
                # The asker is waiting meanwhile, but not much longer than this.
                await asyncio.wait([greeting], timeout=_PROVE_SECONDS)
        if self._endpoint.fits(sender, said):
            return said
        nodes = said.nodes if isinstance(said, wire.Values) else said
        return next(
            (
                nodes[:count]
                for count in range(len(nodes), 0, -1)
                if self._endpoint.fits(sender, nodes[:count])
            ),
            [],
        )

    def _values(self, place: bytes, sender: tuple[str, int]) -> list[bytes]:
        own = self._own(place, sender[0])
        held = self.held.get(place, now=self._clock())
        return own + random.sample(held, min(len(held), _ANSWER_VALUES - len(own)))

    def _own(self, place: bytes, asker: str) -> list[bytes]:
        """This node's own announcement for an asker, with an address that the asker can reach."""
        own = self.own.get(place)
        if not own:
            return []
        ip = ipaddress.IPv4Address(asker)
        near = [str(each.ip) for each in self.networks if ip in each.network]
        hosts = [self._seen_by.get(asker, ""), *near, *own]
        return [own[next(host for host in hosts if host in own)]]

    def _neighbours(self, place: bytes, sender: tuple[str, int], count: int) -> list[tuple[bytes, str, int]]:
        return [one for one in self._table.near(place, count) if (one.host, one.port) != sender]

    async def _store(self, sender: tuple[str, int], place: bytes, envelope: bytes) -> bool:
        """Keep an announcement, if its sender has it when asked: a sender's address may be forged."""
        if sender[0] in self._storing or len(self._storing) >= _MAX_STORING:
            return False
        self._storing.add(sender[0])
        try:
            said = await self._endpoint.ask(sender, wire.Found, "find_value", self.id, place)
            if not isinstance(said, wire.Values) or envelope not in said.envelopes:
                return False
            self.held.put(place, envelope, sender=sender, now=self._clock())
        except AnnouncementError:
            return False
        finally:
            self._storing.discard(sender[0])
        return True

    def _meet(self, address: tuple[str, int]) -> "asyncio.Task[Contact | None] | None":
        """Begin to ping a node that has asked or answered, without waiting."""
        if address in self._greeted:
            return self._greeted[address]
        of_host = sum(host == address[0] for host, _ in self._greeted)
        if self._is_here(address) or len(self._greeted) >= _MAX_GREETED or of_host >= _MAX_GREETED_OF_HOST:
            return None
        return self._begin_greeting(address)

    async def _greet(self, address: tuple[str, int], *, tries: int = 1) -> Contact | None:
        """Ping an address. A node that answers gets into the table, with the id that it gives."""
        for _ in range(tries):
            found = await asyncio.shield(self._begin_greeting(address))
            if found is not None:
                return found
        return None

    def _begin_greeting(self, address: tuple[str, int]) -> "asyncio.Task[Contact | None]":
        if address in self._greeted:
            return self._greeted[address]
        task = asyncio.ensure_future(self._ping(address))
        self._greeted[address] = task
        task.add_done_callback(lambda _: self._greeted.pop(address))
        return task

    async def _ping(self, address: tuple[str, int]) -> Contact | None:
        number = await self._endpoint.ask(address, bytes, "ping", self.id)
        if number is None or len(number) != wire.ID_BYTES or number == self.id:
            for one in self.known:
                if (one.host, one.port) == address:
                    self._table.drop(one)
            return None
        contact = Contact(number, *address)
        in_its_place = self._keep(contact)
        if in_its_place is not None:
            # If that one has gone, the next node finds room.
            self._meet((in_its_place.host, in_its_place.port))
        return contact

    def _keep(self, contact: Contact) -> Contact | None:
        """Put a node that has answered just now into the table; see `Table.add`."""
        address = contact.host, contact.port
        self._seen[address] = monotonic()
        self._seen.move_to_end(address)
        if len(self._seen) > _MAX_SEEN:
            self._seen.popitem(last=False)
        return self._table.add(contact)

    def _is_here(self, address: tuple[str, int]) -> bool:
        return monotonic() - self._seen.get(address, -_SEEN_SECONDS) < _SEEN_SECONDS
