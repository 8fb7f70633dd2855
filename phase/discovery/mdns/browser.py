"""Looks for providers on the local networks: asks on each interface, and reads the answers there.

Answers are not trusted, and everything that is kept has a limit. Most answers hold all needed records in one
packet; those are not kept at all.
"""

import contextlib
import ipaddress
import os
import random
import selectors
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from queue import SimpleQueue
from time import monotonic
from typing import NamedTuple, Self

from phase.discovery.budget import Budget
from phase.discovery.interfaces import Interface, Ip, Watch, interfaces
from phase.discovery.mdns import wire
from phase.discovery.mdns.pool import Pool
from phase.discovery.mdns.sockets import PORT, Datagram, Socket
from phase.discovery.mdns.wire import SERVICE_NAME, Name, Question
from phase.discovery.records import DiscoveryError, Heard, from_txt

#: Seconds from one question to the next; the last one again and again (RFC 6762, section 5.2).
_AGAIN_SECONDS = (1.0, 2.0, 4.0, 8.0)
#: Seconds until a question about a name whose answer lacked a record.
_LATER_SECONDS = 0.1
#: Limits: such names, questions about each, and instances that are remembered as reported.
MAX_LATER, _MAX_ASKED, MAX_TOLD = 64, 2, 1024
#: Instances of one sender that count as its own. Those it tells of beyond that come after all others.
MAX_OF_TELLER = 4
#: Limit for the addresses of one instance.
_MAX_CANDIDATES = 4
#: Limit for the results that wait to be taken.
MAX_WAITING = 256
#: Datagrams that are read from one socket before the next one.
_BATCH = 64
#: Limits for the datagrams of one sender: per second, and at once; all senders together have so many times
#: that.
_LOOKED_AT, _TOGETHER = (60.0, 120.0), 4


class _Instance(NamedTuple):
    number: int
    name: Name


class Complete(NamedTuple):
    """An instance whose records are complete: TXT with its size in bytes, and an address."""

    name: Name
    teller: Ip
    txt: Mapping[bytes, bytes | None]
    size: int
    address: str
    zone: str
    port: int


class Browser:
    """One search of the local networks, in a thread of its own. `close` ends thread and sockets.

    Args:
        channel: wanted release channel.
        arch: wanted architecture.
        queue: receives the providers found.
    """

    def __init__(self, channel: str, arch: str, queue: "SimpleQueue[Heard]") -> None:
        self._begin(Reader(channel, arch, queue))

    def _begin(self, reader: "Reader") -> None:
        self.reader = reader
        self._stopped, self._stop = os.pipe()
        self._sockets: dict[tuple[int, int], Socket] = {}
        self._problem = ""
        self._looked_at = Budget(*_LOOKED_AT, together=_TOGETHER)
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._run, name="mdns", daemon=True)
        self._thread.start()

    @property
    def problem(self) -> str:
        """Why no network can be asked at this moment; empty if one can."""
        return self._problem

    def close(self) -> None:
        """End the search."""
        os.write(self._stop, b"x")
        self._thread.join()
        os.close(self._stop)
        os.close(self._stopped)

    def _run(self) -> None:
        watch = Watch()
        with self._selector as selector, contextlib.closing(watch):
            selector.register(self._stopped, selectors.EVENT_READ, None)
            descriptor = watch.fileno()
            if descriptor is not None:
                selector.register(descriptor, selectors.EVENT_READ, watch)
            try:
                self._loop(watch)
            except Exception as error:
                # The search ends without a provider; its caller hears why.
                self._problem = f"multicast DNS failed: {error!r:.200}"
            finally:
                for each in self._sockets.values():
                    each.close()

    def _loop(self, watch: Watch) -> None:
        following, rounds = monotonic(), 0
        while True:
            now = monotonic()
            if now >= following:
                # Without notice of changes, poll for them.
                self._open()
                self._ask(self._sockets.values())
                following = now + _AGAIN_SECONDS[min(rounds, len(_AGAIN_SECONDS) - 1)]
                rounds += 1
            self._ask_later(now)
            wait = following - monotonic()
            if self.reader.later:
                wait = min(wait, _LATER_SECONDS)
            for key, _ in self._selector.select(max(wait, 0)):
                if key.data is None:
                    return
                if isinstance(key.data, Watch):
                    if watch.changed():
                        self._ask(self._open())
                elif key.data in self._sockets.values():
                    # Else a change of the interfaces, seen in this same round, has closed it.
                    self._receive(key.data)

    def _open(self) -> list[Socket]:
        """Have a socket for each interface; returns those that are new."""
        try:
            here = interfaces()
        except DiscoveryError as error:
            self._problem = str(error)
            return []
        self.reader.here = {each.number: each for each in here}
        wanted = {(each.number, version): each for each in here for version in (4, 6)}
        wanted = {key: each for key, each in wanted.items() if each.multicast and each.has(key[1])}
        for key, each in list(self._sockets.items()):
            # A socket sends from the address that its interface had when it was made.
            if key not in wanted or wanted[key].addresses != each.interface.addresses:
                self._forget(each)
        new, problem = [], "this machine has no network address" if not wanted else ""
        for key in wanted.keys() - self._sockets.keys():
            try:
                opened = _socket(wanted[key], key[1])
            except OSError as error:
                problem = f"multicast DNS cannot be used on {wanted[key].name}: {error.strerror or error}"
                continue
            self._sockets[key] = opened
            self._selector.register(opened, selectors.EVENT_READ, opened)
            new.append(opened)
        self._problem = "" if self._sockets else problem
        return new

    def _forget(self, gone: Socket) -> None:
        self._selector.unregister(gone)
        del self._sockets[gone.interface.number, gone.version]
        gone.close()

    def _ask(self, sockets: Iterable[Socket]) -> None:
        question = wire.query([Question(self.reader.service, wire.PTR)])
        for each in sockets:
            # An interface without a route for it; others may have one.
            with contextlib.suppress(OSError):
                each.multicast(question)

    def _ask_later(self, now: float) -> None:
        for index, questions in self.reader.missing(now).items():
            packet = wire.query(questions)
            for each in self._sockets.values():
                if each.interface.number == index:
                    with contextlib.suppress(OSError):
                        each.multicast(packet)

    def _receive(self, socket: Socket) -> None:
        for _ in range(_BATCH):
            try:
                datagram = socket.receive()
            except OSError:
                # Its interface went down while it was read.
                self._forget(socket)
                return
            if datagram is None:
                return
            if self._looked_at.take(str(datagram.source), 1, monotonic()):
                self.reader.read(datagram)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Reader:
    """Reads datagrams, without sockets and time.

    Args:
        channel: wanted release channel.
        arch: wanted architecture.
        queue: receives the providers found.

    Attributes:
        here: this machine's interfaces, by number.
        later: instances whose answer lacked records: when each was heard of first, and how often it was
            asked about.
    """

    #: What it looks for instances of.
    service = SERVICE_NAME

    def __init__(self, channel: str, arch: str, queue: "SimpleQueue[Heard]") -> None:
        self.here: dict[int, Interface] = {}
        self.later: dict[_Instance, tuple[float, int]] = {}
        self.pool = Pool()
        self._channel, self._arch = channel, arch
        self._queue = queue
        #: Addresses of each instance that were reported.
        self.told: dict[Name, set[str]] = {}
        self._tellers: Counter[Ip] = Counter()

    def read(self, datagram: Datagram) -> None:
        """Take one datagram from anyone."""
        packet = wire.parse(datagram.data)
        if packet is None or not packet.response or datagram.number not in self.here:
            return
        instances: dict[Name, None] = {}
        addresses = False
        for record in (*packet.answers, *packet.additionals):
            if not record.ttl:
                continue
            if record.type == wire.PTR and wire.folded(record.name) == self.service:
                of = wire.folded(wire.read_ptr(record.data))
            else:
                of = wire.folded(record.name)
                addresses = addresses or record.type in (wire.A, wire.AAAA)
                self.pool.add(datagram.number, record, datagram.source)
            if len(of) == len(self.service) + 1 and of[1:] == self.service:
                instances[of] = None
        # An address that was missing may have come.
        waiting = [each.name for each in self.later if addresses and each.number == datagram.number]
        for name in (*instances, *(name for name in waiting if name not in instances)):
            self._resolve(_Instance(datagram.number, name), datagram.source, fresh=name in instances)

    def missing(self, now: float) -> dict[int, list[Question]]:
        """The questions to ask now, by interface, about instances that still lack records."""
        questions: dict[int, list[Question]] = {}
        for instance, (since, asked) in list(self.later.items()):
            if now < since + _LATER_SECONDS * (1 + 9 * asked):
                continue
            if asked >= _MAX_ASKED:
                del self.later[instance]
                continue
            self.later[instance] = since, asked + 1
            questions.setdefault(instance.number, []).extend(self._lacking(instance))
        return questions

    def _lacking(self, instance: _Instance) -> list[Question]:
        wanted = [kind for kind in (wire.SRV, wire.TXT) if not self.pool.find(*instance, kind)]
        if wanted:
            return [Question(instance.name, kind) for kind in wanted]
        hosts = {wire.read_srv(data)[1] for data in self.pool.find(*instance, wire.SRV)}
        return [Question(host, kind) for host in list(hosts)[:2] for kind in (wire.A, wire.AAAA)]

    def _resolve(self, instance: _Instance, teller: Ip, *, fresh: bool) -> None:
        found: list[tuple[str, str, int]] = []
        texts = self.pool.find(*instance, wire.TXT)
        services = [wire.read_srv(data) for data in self.pool.find(*instance, wire.SRV)]
        here = self.here[instance.number]
        for port, host in services:
            packed = [
                data
                for kind in (wire.A, wire.AAAA)
                for data in self.pool.find(instance.number, wire.folded(host), kind)
            ]
            for ip in candidates([ipaddress.ip_address(data) for data in packed], here, self.here, teller):
                zone = here.zone if ip.version == 6 and ip.is_link_local else ""
                found.append((str(ip), zone, port))
        if not texts or not found:
            if fresh:
                self._put_off(instance)
            return
        self.later.pop(instance, None)
        for text in texts:
            txt = wire.read_txt(text)
            for address, zone, port in found:
                self.take(Complete(instance.name, teller, txt, len(text), address, zone, port))

    def take(self, heard: "Complete") -> None:
        """Report an instance whose records are complete, if it is wanted."""
        provider = from_txt(
            heard.txt,
            heard.address,
            heard.port,
            channel=self._channel,
            arch=self._arch,
            zone=heard.zone,
            size=heard.size,
        )
        if provider is not None:
            self._tell(heard.name, heard.teller, Heard(provider, 0))

    def _tell(self, name: Name, teller: Ip, heard: Heard) -> None:
        urls = self.told.get(name)
        if urls is None:
            if len(self.told) >= MAX_TOLD or self._queue.qsize() >= MAX_WAITING:
                return
            urls = self.told[name] = set()
            self._tellers[teller] += 1
        key = f"{heard.provider.url} {heard.provider.version}"
        if key in urls or len(urls) >= 2 * _MAX_CANDIDATES:
            return
        rank = len(urls) + (self._tellers[teller] > MAX_OF_TELLER)
        urls.add(key)
        self._queue.put(Heard(heard.provider, rank))

    def _put_off(self, instance: _Instance) -> None:
        if instance in self.later:
            return
        if len(self.later) >= MAX_LATER:
            # Any of them may be the honest one, also the last.
            del self.later[random.choice(list(self.later))]  # noqa: S311
        self.later[instance] = monotonic(), 0


def candidates(told: list[Ip], arrived: Interface, here: dict[int, Interface], teller: Ip) -> list[Ip]:
    """The addresses of a provider to try, the nearest first.

    Args:
        told: its addresses, by its own answer.
        arrived: the interface on which the answer came.
        here: all interfaces of this machine.
        teller: address of the sender.

    Returns:
        First the addresses on the network that the answer came from, then those behind a router, then those
        on other networks of this machine: two machines may have bridges with the same network that are not
        connected. This machine's own addresses count only if this machine has sent the answer.
    """
    own = {each.ip for one in here.values() for each in one.addresses}
    others = [one for one in here.values() if one.number != arrived.number and not one.loopback]

    def rank(ip: Ip) -> int:
        if arrived.on_link(ip):
            return 1 if ip.is_link_local else 0
        if any(one.on_link(ip) for one in others):
            return 3
        able = any(one.has(ip.version) for one in here.values() if not one.loopback)
        return 2 if able and not ip.is_link_local else 4

    mine = teller in own
    usable = [
        ip
        for ip in dict.fromkeys(told)
        if not (ip.is_multicast or ip.is_unspecified or ip in _NOBODY)
        and (mine or ip not in own)
        and (not ip.is_loopback or arrived.loopback)
    ]
    return sorted(usable, key=rank)[:_MAX_CANDIDATES]


_NOBODY = frozenset((ipaddress.IPv4Address("255.255.255.255"),))


def _socket(interface: Interface, version: int) -> Socket:
    try:
        return Socket(interface, version, port=PORT)
    except OSError:
        # Held by a program that does not share it: then the answers come to a port of our own.
        return Socket(interface, version, port=0)
