"""The real transport: QUIC by iroh, directly where UDP gets through, over a relay where it does not.

Nobody is asked for names or addresses, and no host of iroh's makers is contacted. What is sent to the
network besides the peers' own packets: a search for the router by SSDP, where there is a default route, and
one request to port 80 of each relay's host. So this is not for private mode.
"""

import asyncio
import contextlib
import functools
import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic

import iroh

from phase.identity import Identity
from phase.peer import batches, bindings, seen
from phase.peer.address import MAX_HOSTS, Address, join_host
from phase.peer.errors import ConnectionLostError, UnreachableError
from phase.peer.links import IrohConnection
from phase.peer.resolve import binds, resolve
from phase.peer.strangers import Strangers
from phase.peer.transport import Code
from phase.provider.background import Background

_log = logging.getLogger(__name__)
#: The protocol between nodes, and its version.
ALPN = b"phase/1"
#: For the peers' libraries to take note of the end. Whoever is silent would take the library 3 s.
CLOSE_SECONDS = 1.0
#: Seconds between two questions to the relays which address they see: the first number after a question that
#: none has answered, doubled each time; the second after an answer, and at most.
ASK_SECONDS = (1.0, 60.0)
#: Addresses that others see of this node, as many are kept; the oldest goes first.
MAX_SEEN = 4


@dataclass(frozen=True)
class Limits:
    """What strangers can make this side hold.

    Attributes:
        connections: connections in all.
        per_peer: connections of one key.
        handshakes: handshakes at a time; from half of them on, a peer must first show that it can be reached
            at the address that it sends from.
        handshake_seconds: for one handshake.
        strangers: that one address may bring, which are not admitted: further ones are refused before the
            handshake, unless an admitted peer has come from there before.
        stranger_seconds: after which an address may bring another one.
        backlog: connections that wait for `accept`.
        beat_seconds: a peer that was not heard for so long is asked for a sign of life.
        silent_seconds: a peer that was not heard for so long is gone. A path that has failed takes 15 s
            to be given up for another, a relay may be started anew, a busy machine may stand still for a
            while.
    """

    connections: int = 1024
    per_peer: int = 4
    handshakes: int = 64
    handshake_seconds: float = 5.0
    strangers: int = 16
    stranger_seconds: float = 1.0
    backlog: int = 64
    beat_seconds: float = 1.0
    silent_seconds: float = 20.0


def _anyone(key: str) -> str:
    return ""


@dataclass(frozen=True)
class Options:
    """How to take part.

    Attributes:
        listen: `HOST:PORT` of UDP, numeric, at most one of IPv4 and one of IPv6; port 0 for any. A family
            that is left out is not listened on, except on loopback.
        relays: `http://HOST:PORT` of relays that peers may use to reach this node.
        admit: says why a key may not connect at all; an empty text admits it. Called before anything of the
            connection is kept.
        limits: see there.
    """

    listen: tuple[str, ...] = ("0.0.0.0:0", "[::]:0")
    relays: tuple[str, ...] = ()
    admit: Callable[[str], str] = _anyone
    limits: Limits = field(default_factory=Limits)


class IrohTransport:
    """See `Transport`. Made by `start`."""

    def __init__(self, endpoint: iroh.Endpoint, key: str, options: Options) -> None:
        self._endpoint, self._key, self._options = endpoint, key, options
        self._arrived: deque[IrohConnection] = deque()
        self._changed, self._closed = asyncio.Event(), False
        self._open: set[IrohConnection] = set()
        self._handshakes = 0
        self._beaten_at = monotonic()
        #: Addresses that others see of this node.
        self._seen: deque[str] = deque()
        self._tasks = Background()
        self._strangers = Strangers(options.limits.strangers, options.limits.stranger_seconds)
        #: Connections of others that were refused, by the reason.
        self.refused: Counter[str] = Counter()
        #: Handshakes whose peer had to show first that it can be reached.
        self.challenged = 0

    @classmethod
    async def start(cls, identity: Identity, options: Options | None = None) -> "IrohTransport":
        """Listen, and take part.

        Args:
            identity: whose key is the address.
            options: how.

        Raises:
            PeerError: an address cannot be listened on, or a relay's name has no address.
        """
        options = options or Options()
        # The bindings type all but this function.
        begin: Callable[[], iroh.EndpointBuilder] = iroh.EndpointBuilder
        builder = begin()
        builder.apply_minimal()
        builder.secret_key(identity.seed())
        builder.alpns([ALPN])
        for each in binds(options.listen):
            builder.bind_addr(each)
        relays = iroh.RelayMap.empty()
        numeric = (await resolve(Address(identity.public_key, (), options.relays))).relays
        for url in numeric:
            # Without a port it asks no question by UDP, so the relay is ready at once.
            relays.insert(iroh.RelayConfig(url=url, quic_port=None))
        builder.relay_mode(iroh.RelayMode.custom(relays))
        try:
            endpoint = await batches.bound(builder.bind())
        except iroh.IrohError as error:
            raise bindings.of_bind(error, options.listen) from None
        started = cls(endpoint, identity.public_key, options)
        started._tasks.start("accept of peers", started._accepting)
        started._tasks.repeat("heartbeat of peers", started._beat, options.limits.beat_seconds)
        if numeric:
            ask = functools.partial(started._ask, numeric)
            started._tasks.start("asking relays for the own address", ask)
        return started

    @property
    def key(self) -> str:
        """See `Transport`."""
        return self._key

    def address(self) -> Address:
        """See `Transport`."""
        # A family that is not listened on is bound on loopback, and is not to be told.
        told = {each.startswith("[") for each in self._options.listen}
        hosts = [each for each in self._endpoint.addr().direct_addresses() if each.startswith("[") in told]
        return Address(self._key, tuple(hosts[:MAX_HOSTS]), self._options.relays)

    def connections(self) -> list[IrohConnection]:
        """Those that are open."""
        self._open = {each for each in self._open if each.over() is None}
        return list(self._open)

    async def connect(self, address: Address, timeout: float) -> IrohConnection:
        """See `Transport`."""
        if self._closed:
            raise _closed()
        try:
            async with asyncio.timeout(timeout):
                made = await self._connect(await resolve(address))
        except TimeoutError:
            where = ", ".join((*address.hosts, *address.relays))
            raise UnreachableError(
                f"the node {address.key} does not answer at {where} within {timeout:g} s",
                hint="Check its address, and that UDP gets through; or name a relay that both can reach.",
            ) from None
        kept = self._keep(made)
        self._tasks.once("words of a peer", self._hear(kept))
        return kept

    async def accept(self) -> IrohConnection:
        """See `Transport`."""
        while not self._closed:
            while self._arrived:
                found = self._arrived.popleft()
                if found.over() is None:
                    return found
            self._changed.clear()
            await self._changed.wait()
        raise _closed()

    async def close(self) -> None:
        """See `Transport`."""
        if self._closed:
            return
        self._closed = True
        self._changed.set()
        for each in self.connections():
            each.end(Code.STOPPING, "the node stops")
        await self._tasks.stop(1.0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._endpoint.close()

    async def _connect(self, address: Address) -> iroh.Connection:
        try:
            node = iroh.EndpointId.from_bytes(bytes.fromhex(address.key))
            where = iroh.EndpointAddr(node, next(iter(address.relays), None), list(address.hosts))
            return await self._endpoint.connect(where, ALPN)
        except iroh.IrohError as error:
            raise bindings.of_connect(error, address.key) from None

    def _keep(self, inner: iroh.Connection) -> IrohConnection:
        kept = IrohConnection(inner)
        self._open.add(kept)
        return kept

    async def _accepting(self) -> None:
        most = self._options.limits.handshakes
        while incoming := await self._endpoint.accept_next():
            place = _place(await incoming.remote_addr())
            if self._handshakes >= most or self._strangers.too_many(place):
                full = self._handshakes >= most
                self._refused("too many handshakes" if full else "too many strangers from one address")
                await incoming.refuse()
            elif self._handshakes >= most // 2 and not await incoming.remote_addr_validated():
                self.challenged += 1
                await incoming.retry()
            else:
                self._handshakes += 1
                self._tasks.once("handshake of a peer", self._handshake(incoming, place))
        await asyncio.Event().wait()

    async def _handshake(self, incoming: iroh.Incoming, place: str) -> None:
        try:
            async with asyncio.timeout(self._options.limits.handshake_seconds):
                inner = await (await incoming.accept()).connect()
        except (iroh.IrohError, TimeoutError):
            self._refused("the handshake failed")
        else:
            self._decide(self._keep(inner), place)
        finally:
            self._handshakes -= 1

    def _decide(self, arrived: IrohConnection, place: str) -> None:
        """Admit a connection of a peer, or refuse it and say why."""
        if why := self._options.admit(arrived.peer):
            self._strangers.came(place)
            self._refused(why)
            arrived.end(Code.REFUSED, why)
            return
        self._strangers.friend(place)
        limits, others = self._options.limits, self.connections()
        if len(others) > limits.connections or len(self._arrived) >= limits.backlog:
            self._busy(arrived, "this node has too many connections")
        elif sum(each.peer == arrived.peer for each in others) > limits.per_peer:
            self._busy(arrived, f"a node may have {limits.per_peer} connections here")
        else:
            self._arrived.append(arrived)
            self._changed.set()

    def _busy(self, arrived: IrohConnection, why: str) -> None:
        self._refused(why)
        arrived.end(Code.BUSY, why)

    def _refused(self, why: str) -> None:
        self.refused[why] += 1
        _log.debug("a peer was refused: %s", why)

    async def _beat(self) -> None:
        now = monotonic()
        # While this process itself did not run, it asked nobody, and nobody owed it an answer.
        passed = min(now - self._beaten_at, 2 * self._options.limits.beat_seconds)
        self._beaten_at = now
        for each in self.connections():
            changed = each.look(passed)
            if changed:
                _log.info("the way to the node %s is %s by %s", each.peer, changed.kind, changed.remote)
                if changed.kind == "direct":
                    each.send(seen.tell(changed.remote))
            self._check_silence(each)

    def _check_silence(self, each: IrohConnection) -> None:
        limits = self._options.limits
        if each.silent >= limits.silent_seconds:
            why = f"nothing was heard from the peer for {each.silent:.0f} s"
            _log.info("the node %s is gone: %s", each.peer, why)
            each.end(Code.SILENT, why, ConnectionLostError(f"the peer is gone: {why}"))
        elif each.silent >= limits.beat_seconds:
            # The peer's library acknowledges it; its program need not read it.
            each.send(seen.BEAT)

    async def _ask(self, relays: Sequence[str]) -> None:
        """Ask the relays which address they see. Many NATs keep the port, so it is worth a try."""
        pause = 0.0
        while True:
            told = {relay: await seen.ask(relay) for relay in relays}
            for relay, host in told.items():
                for each in self._endpoint.bound_sockets() if host else ():
                    if each.startswith("[") == (":" in host):
                        await self._add_seen(join_host(host, int(each.rpartition(":")[2])), relay)
            first, most = ASK_SECONDS
            pause = most if any(told.values()) else min(max(2 * pause, first), most)
            await asyncio.sleep(pause)

    async def _hear(self, connection: IrohConnection) -> None:
        """Listen to a peer that this node has chosen, as long as it is connected."""
        with contextlib.suppress(iroh.IrohError):
            while True:
                if told := seen.told(await connection.inner.read_datagram()):
                    await self._add_seen(told, connection.peer)

    async def _add_seen(self, address: str, by: str) -> None:
        if address in self._seen or address in self._endpoint.addr().direct_addresses():
            return
        _log.info("%s sees this node at %s", by, address)
        self._seen.append(address)
        await self._endpoint.add_external_addr(address)
        if len(self._seen) > MAX_SEEN:
            await self._endpoint.remove_external_addr(self._seen.popleft())


def _place(told: iroh.IncomingAddr) -> str:
    """`HOST:PORT` that a connection comes from; over a relay, who it is by the relay's word, as a host."""
    if isinstance(told, iroh.IncomingAddr.IP):
        return told.addr
    if isinstance(told, iroh.IncomingAddr.RELAY):
        return f"{told.endpoint_id.to_bytes().hex()}:0"
    return ":0"


def _closed() -> ConnectionLostError:
    return ConnectionLostError("this transport is closed")
