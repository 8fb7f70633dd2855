"""A node of the DHT: knows others, keeps what they announce, and searches."""

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from time import monotonic, time
from typing import Any

from kademlia.node import Node
from kademlia.routing import RoutingTable

from phase.discovery.dht import announcement, wire
from phase.discovery.dht.announcement import Announcement, AnnouncementError
from phase.discovery.dht.endpoint import Endpoint
from phase.discovery.dht.holdings import Holdings
from phase.discovery.dht.wire import Contact
from phase.discovery.records import DiscoveryError

#: Nodes that keep an announcement, and that are asked at the same time (the paper's k and alpha).
K, ALPHA = 20, 3
#: Nodes one search asks, and nodes of one host among them: who answers for many must not be all there is.
MAX_ASKED, MAX_OF_HOST = 64, 2
#: Nodes that do not answer, after which a search ends, and nodes it hears of and has not asked.
MAX_DEAD, _MAX_HEARD = 24, 256
#: Envelopes one search checks.
_MAX_CHECKED = 128
#: Strangers that are greeted at the same time.
_MAX_GREETED = 16
#: Seconds for which a host that has answered counts as being there.
_SEEN_SECONDS = 120.0


class Dht:
    """One node.

    Args:
        serves: answer others and keep what they announce. One that does not is never in their tables.
        clock: seconds since the epoch.
    """

    def __init__(self, *, serves: bool, clock: Callable[[], float] = time) -> None:
        self.id = os.urandom(wire.ID_BYTES)
        self.held = Holdings()
        self._clock = clock
        self._serves = serves
        self._endpoint = Endpoint(self._answer if serves else None)
        self._table = RoutingTable(self, K, Node(self.id))
        self._greeted: dict[tuple[str, int], asyncio.Task[Contact | None]] = {}
        #: Who has answered, where: it has not only said so.
        self._seen: dict[tuple[str, int], float] = {}

    async def start(self, bind: str, port: int) -> int:
        """Listen.

        Args:
            bind: IPv4 address.
            port: UDP; 0 for any.

        Returns:
            The port.

        Raises:
            DiscoveryError: it cannot be listened on.
        """
        try:
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: self._endpoint, local_addr=(bind, port), family=socket.AF_INET
            )
        except OSError as error:
            raise DiscoveryError(
                f"UDP port {port} cannot be listened on: {error.strerror or error}"
            ) from error
        return int(transport.get_extra_info("sockname")[1])

    def close(self) -> None:
        """Leave. What others keep expires."""
        for task in self._greeted.values():
            task.cancel()
        self._endpoint.close()

    @property
    def known(self) -> list[Contact]:
        """The nodes in the routing table, each seen to answer."""
        return [Contact(*node) for bucket in self._table.buckets for node in bucket.get_nodes()]

    async def join(self, peers: Iterable[tuple[str, int]]) -> int:
        """Get to know others, and those near to this node.

        Args:
            peers: as for `reach`.

        Returns:
            How many nodes are known.
        """
        if await self.reach(peers):
            await self._search(self.id, "find_node", lambda values: None)
        return len(self.known)

    async def reach(self, peers: Iterable[tuple[str, int]]) -> int:
        """Get to know others; all that is needed to search.

        Args:
            peers: hosts and ports to begin with; names are looked up.

        Returns:
            How many nodes are known.
        """
        loop = asyncio.get_running_loop()
        addresses: dict[tuple[str, int], None] = {}
        for host, port in peers:
            try:
                found = await loop.getaddrinfo(host, port, family=socket.AF_INET, type=socket.SOCK_DGRAM)
            except OSError:
                continue  # not known now; whoever calls again asks again
            addresses |= dict.fromkeys((str(each[4][0]), port) for each in found[:2])
        await asyncio.gather(*(self._greet(address, patient=True) for address in addresses))
        return len(self.known)

    async def seen_as(self) -> str | None:
        """The address that most of five other nodes see this one at; None where none says."""
        asked = [(one.host, one.port) for one in self.known[:5]]
        said = await asyncio.gather(*(self._endpoint.ask(each, wire.Seen, "stun") for each in asked))
        votes = Counter(each[0] for each in said if each is not None)
        return votes.most_common(1)[0][0] if votes else None

    async def announce(self, place: bytes, envelope: bytes) -> int:
        """Have an announcement kept by the nodes that are nearest to its place.

        Returns:
            How many keep it, this one not counted.
        """
        nearest = await self._search(place, "find_node", lambda values: None)
        said = await asyncio.gather(
            *(
                # Each looks first whether this node is where it says.
                self._endpoint.ask(
                    (one.host, one.port), bool, "store", self.id, place, envelope, seconds=3.0
                )
                for one in nearest
            )
        )
        return sum(each is True for each in said)

    async def look(self, place: bytes, found: Callable[[Announcement], None]) -> None:
        """Search a place.

        Args:
            place: 20 bytes.
            found: is called with each announcement that holds, as soon as it is there. None is true
                because of that.
        """
        checked: set[bytes] = set()

        def take(values: Sequence[bytes]) -> None:
            for envelope in values:
                if envelope in checked or len(checked) >= _MAX_CHECKED:
                    continue
                checked.add(envelope)
                try:
                    said = announcement.read(envelope, place=place, now=self._clock())
                except AnnouncementError:
                    continue
                found(said)

        take(self.held.get(place, now=self._clock()))
        await self._search(place, "find_value", take)

    async def _search(
        self, place: bytes, question: str, take: Callable[[Sequence[bytes]], None]
    ) -> list[Contact]:
        """Ask the nodes that are known, then the nearest that those know, until none nearer is left.

        Returns:
            Of those that answered, the nearest.
        """
        target = int.from_bytes(place)
        # Who told of whom; nobody of those whom this node knows itself.
        heard: dict[Contact, str] = {Contact(*node): "" for node in self._table.find_neighbors(Node(place))}
        answered: list[Contact] = []
        tried: Counter[str] = Counter()
        used: Counter[str] = Counter()
        dead: Counter[str] = Counter()
        running: set[asyncio.Task[tuple[Contact, Any]]] = set()

        def near(contact: Contact) -> int:
            return contact.number ^ target

        def following() -> Contact | None:
            """Whom to ask next: whoever has told of nobody that is there is believed last."""
            if sum(tried.values()) >= MAX_ASKED or sum(dead.values()) >= MAX_DEAD:
                return None
            answered.sort(key=near)
            bound = near(answered[K - 1]) if len(answered) >= K else 1 << 160
            return min(
                (
                    one
                    for one in heard
                    if near(one) < bound
                    and used[one.host] < MAX_OF_HOST
                    and tried[one.host] < 2 * MAX_OF_HOST
                ),
                key=lambda one: (dead[heard[one]], heard[one] != "", near(one)),
                default=None,
            )

        async def ask(one: Contact) -> tuple[Contact, Any]:
            return one, await self._endpoint.ask((one.host, one.port), wire.Found, question, self.id, place)

        tellers: dict[Contact, str] = {}
        try:
            while True:
                while len(running) < ALPHA and (chosen := following()) is not None:
                    tellers[chosen] = heard.pop(chosen)
                    tried[chosen.host] += 1
                    used[chosen.host] += 1
                    running.add(asyncio.ensure_future(ask(chosen)))
                if not running:
                    break
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    one, said = task.result()
                    if said is None:
                        used[one.host] -= 1
                        dead[tellers[one]] += 1
                        self._table.remove_contact(Node(*one))
                        continue
                    answered.append(one)
                    self._meet((one.host, one.port))
                    nodes = said
                    if isinstance(said, wire.Values):
                        nodes = said.nodes
                        take(said.value)
                    for contact in wire.usable(nodes, teller=one.host):
                        if len(heard) < _MAX_HEARD and contact.id != self.id and contact not in tellers:
                            heard.setdefault(contact, one.host)
        finally:
            for task in running:
                task.cancel()
        return sorted(answered, key=near)[:K]

    async def _answer(self, sender: tuple[str, int], name: str, arguments: list[bytes]) -> object:
        if name == "stun":
            return sender
        if not arguments or any(len(each) != wire.ID_BYTES for each in arguments[:2]):
            return None
        self._meet(sender)
        match name, len(arguments):
            case "ping", 1:
                return self.id
            case "find_node", 2:
                return self._neighbours(arguments[1], sender)
            case "find_value", 2:
                values = self.held.get(arguments[1], now=self._clock())
                nodes = self._neighbours(arguments[1], sender)
                return wire.Values(values, nodes) if values else nodes
            case "store", 3:
                return await self._store(sender, arguments[1], arguments[2])
        return None

    def _neighbours(self, place: bytes, sender: tuple[str, int]) -> list[tuple[bytes, str, int]]:
        found = self._table.find_neighbors(Node(place))
        return [tuple(node) for node in found if (node.ip, node.port) != sender]

    async def _store(self, sender: tuple[str, int], place: bytes, envelope: bytes) -> bool:
        # Nobody announces in the name of a host that is not there, or knows nothing of it.
        if not self._is_here(sender) and await self._greet(sender) is None:
            return False
        try:
            self.held.put(place, envelope, sender=sender[0], now=self._clock())
        except AnnouncementError:
            return False
        return True

    def keep(self, place: bytes, envelope: bytes, *, host: str) -> None:
        """Keep an announcement of this node's own.

        Raises:
            AnnouncementError: it cannot be kept.
        """
        self.held.put(place, envelope, sender=host, now=self._clock())

    def _meet(self, address: tuple[str, int]) -> None:
        """See whether somebody is there, who has asked or answered, without waiting for it."""
        if not self._is_here(address) and len(self._greeted) < _MAX_GREETED:
            self._begin_greeting(address)

    async def _greet(self, address: tuple[str, int], *, patient: bool = False) -> Contact | None:
        """See whether somebody is there; then it is in the table, under the id it says itself.

        Args:
            address: host and port.
            patient: ask three times, also where many others are being greeted.
        """
        for _ in range(3 if patient else 1):
            if address not in self._greeted and len(self._greeted) >= _MAX_GREETED and not patient:
                return None
            found = await asyncio.shield(self._greeted.get(address) or self._begin_greeting(address))
            if found is not None:
                return found
        return None

    def _begin_greeting(self, address: tuple[str, int]) -> "asyncio.Task[Contact | None]":
        if address in self._greeted:
            return self._greeted[address]
        task = asyncio.ensure_future(self._ping(address))
        self._greeted[address] = task
        task.add_done_callback(lambda _: self._greeted.pop(address, None))
        return task

    async def _ping(self, address: tuple[str, int]) -> Contact | None:
        number = await self._endpoint.ask(address, bytes, "ping", self.id)
        if number is None or len(number) != wire.ID_BYTES or number == self.id:
            return None
        now = monotonic()
        self._seen = {each: when for each, when in self._seen.items() if now - when < _SEEN_SECONDS}
        self._seen[address] = now
        contact = Contact(number, *address)
        known = self.known
        of_host = [one for one in known if one.host == contact.host]
        for one in of_host:
            # It has another id than before: it was started anew.
            if one.port == contact.port and one.id != contact.id:
                self._table.remove_contact(Node(*one))
        others = [one for one in of_host if one.port != contact.port]
        # An id is taken by who had it first: nobody takes a node's place by repeating its id.
        taken = any(one.id == contact.id and one[1:] != contact[1:] for one in known)
        if len(others) < MAX_OF_HOST and not taken:
            self._table.add_contact(Node(*contact))
        return contact

    async def call_ping(self, node: Any) -> None:
        """See whether a node of a full bucket still answers; the routing table asks for it."""
        if await self._greet((node.ip, node.port)) is None:
            self._table.remove_contact(node)

    def _is_here(self, address: tuple[str, int]) -> bool:
        return monotonic() - self._seen.get(address, -_SEEN_SECONDS) < _SEEN_SECONDS
