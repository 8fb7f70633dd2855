"""The responder on one interface: claims the names there, announces, answers, defends.

Source: RFC 6762, sections 6 (answers), 8 (probing and announcing), 9 (conflicts), 10.1 (goodbye).
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from phase.discovery.budget import Budget
from phase.discovery.interfaces import Interface, Ip
from phase.discovery.mdns import wire
from phase.discovery.mdns.claims import Claims
from phase.discovery.mdns.sockets import PORT, Datagram, Socket
from phase.discovery.mdns.speaker import Speaker
from phase.discovery.mdns.wire import META_NAME, Name, Packet, Question, Record

#: Seconds between probes; their number; seconds to let another machine that probes go first, and how often.
PROBE_SECONDS, _PROBES, _DEFER_SECONDS, _MAX_DEFERRED = 0.25, 3, 1.0, 3
#: Seconds between announcements; their number; and seconds until other providers are asked for again.
_ANNOUNCE_SECONDS, _ANNOUNCEMENTS, _LOOK_SECONDS = 1.0, 2, 1800.0
#: Seconds between two times that the names are claimed anew, if another machine seems to have one.
_DEFEND_SECONDS = 10.0
#: Limits for answers to one machine alone: per second, and at once. The same for datagrams that are read.
_ALONE, _LOOKED_AT = (10.0, 20.0), (300.0, 600.0)
_BATCH = 64
#: A TTL below this is less than half of ours, in seconds (section 6.6).
_SHORT_TTL = 60
#: TTL for a program that does not know multicast DNS (section 6.7).
_LEGACY_TTL = 10


class Progress(Enum):
    """How far a link has come; the text is for people."""

    STARTING = "starting"
    CLAIMING = "claiming its names"
    ANSWERING = "answering"
    HINDERED = "hindered"


class State(NamedTuple):
    """What a link does.

    Attributes:
        progress: how far it has come.
        reason: why it does nothing; only if it is `HINDERED`.
    """

    progress: Progress
    reason: str = ""

    def __str__(self) -> str:
        return self.reason or self.progress.value

    @property
    def well(self) -> bool:
        """Whether it answers, or will soon."""
        return self.progress is not Progress.HINDERED


class Owner(Protocol):
    """The provider that owns the names, on all interfaces."""

    @property
    def claims(self) -> Claims:
        """The names at this moment."""

    @property
    def insists(self) -> bool:
        """Whether the names are used without probing."""

    def is_own(self, record: Record) -> bool:
        """Whether a record is one of this provider's, on any interface."""

    def lost(self, claims: Claims, record: Record, teller: Ip) -> None:
        """Another machine has one of these names."""

    def heard(self, name: Name, ttl: int, teller: Ip) -> None:
        """Another provider says that it is there, or with a TTL of 0 that it has gone."""


class Link:
    """One interface.

    Args:
        interface: of this machine.
        ips: addresses to announce there.
        owner: of the names.
        changed: called when `state` has changed.

    Attributes:
        state: what it does, or why it does nothing.
    """

    def __init__(
        self, interface: Interface, ips: Sequence[Ip], owner: Owner, changed: Callable[[], None]
    ) -> None:
        self.interface = interface
        self.ips = tuple(ips)
        self.state = State(Progress.STARTING)
        #: Why it has no socket for one of the IP versions.
        self._refused = ""
        self._owner = owner
        self._changed = changed
        self._told: Claims | None = None
        self._told_ips: tuple[Ip, ...] = ()
        self._claimed: frozenset[Name] = frozenset()
        self._probing: Claims | None = None
        self._conflict: tuple[Record, Ip] | None = None
        self._deferred = False
        self._dirty = asyncio.Event()
        self._defended = -1e9
        self._rescued = -1e9
        self._alone = Budget(*_ALONE)
        self._looked_at = Budget(*_LOOKED_AT)
        self._speakers: list[Speaker] = []
        self._open()
        self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def answering(self) -> Claims | None:
        """The names that are answered for at this moment; None if there are none."""
        return self._told

    def follow(self, interface: Interface, ips: Sequence[Ip]) -> None:
        """The addresses of the interface, or the claimed names, have changed."""
        same = interface.addresses == self.interface.addresses
        self.interface, self.ips = interface, tuple(ips)
        if not same or not self._speakers:
            # A socket sends from the address that its interface had when it was made.
            self._open()
        self._dirty.set()

    def check(self) -> None:
        """Raise the error that has ended this, if there was one."""
        if self._task.done() and not self._task.cancelled():
            self._task.result()

    async def close(self, *, goodbye: bool) -> None:
        """Leave the interface; with `goodbye`, take back its records if that is still possible."""
        await _ended(self._task)
        if goodbye:
            self._take_back(self._told, self._told_ips, None, ())
        self._shut()

    async def _run(self) -> None:
        while True:
            self._dirty.clear()
            claims, ips = self._owner.claims, self.ips
            if not self._speakers or not claims.instances:
                self._hindered(self._problem() or "nothing to tell of")
            elif await self._claim(claims, ips):
                self._take_back(self._told, self._told_ips, claims, ips)
                self._told, self._told_ips = claims, ips
                self._say_answering()
                await self._announce(claims, ips)
            elif not self._dirty.is_set():
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._dirty.wait()
            if not self._dirty.is_set():
                self._look()

    async def _claim(self, claims: Claims, ips: Sequence[Ip]) -> bool:
        """Probe for the names that are new here; returns whether they are free."""
        names = claims.unique - self._claimed
        if not names or self._owner.insists:
            return True
        self._say_state(State(Progress.CLAIMING))
        wanted = [record for record in claims.all(ips) if wire.folded(record.name) in names]
        wanted = [record for record in wanted if record.unique and record.type != wire.NSEC]
        probe = wire.query([Question(name, wire.ANY) for name in sorted(names)], claimed=wanted)
        self._probing, self._conflict = claims, None
        try:
            for _ in range(_MAX_DEFERRED + 1):
                self._deferred = False
                await asyncio.sleep(random.uniform(0, PROBE_SECONDS))  # noqa: S311
                for _ in range(_PROBES):
                    if self._conflict or self._deferred:
                        break
                    self._send(probe)
                    await asyncio.sleep(PROBE_SECONDS)
                if not self._deferred:
                    break
                await asyncio.sleep(_DEFER_SECONDS)
        finally:
            self._probing = None
        if self._conflict is not None:
            # The owner takes other names, or waits: then this is called again.
            self._owner.lost(claims, *self._conflict)
            await self._dirty.wait()
            return False
        if self._owner.claims != claims:
            return False
        self._claimed |= names
        return True

    async def _announce(self, claims: Claims, ips: Sequence[Ip]) -> None:
        self._look()
        for number in range(_ANNOUNCEMENTS):
            for speaker in self._speakers:
                speaker.say(claims.all(ips))
            self._say_answering()
            if number + 1 < _ANNOUNCEMENTS:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_ANNOUNCE_SECONDS):
                        await self._dirty.wait()
                        return

    def _take_back(
        self, told: Claims | None, told_ips: Sequence[Ip], now: Claims | None, now_ips: Sequence[Ip]
    ) -> None:
        """Say goodbye to records that were announced and no longer hold."""
        if told is None:
            return
        left = {record.key for record in now.all(now_ips)} if now else set()
        # A unique record with other data replaces the old one, so only records without a successor are taken
        # back.
        names = {(wire.folded(record.name), record.type) for record in now.all(now_ips)} if now else set()
        gone = [
            record._replace(ttl=0)
            for record in told.all(told_ips)
            if record.key not in left
            and not (record.unique and (wire.folded(record.name), record.type) in names)
            and wire.folded(record.name) != META_NAME
        ]
        for speaker in self._speakers:
            speaker.hush()
            if gone:
                speaker.say(gone)

    def _look(self) -> None:
        self._send(wire.query([Question(self._owner.claims.service, wire.PTR)]))

    def _send(self, packet: bytes) -> None:
        for speaker in self._speakers:
            speaker.send(packet)

    def _problem(self) -> str:
        """Why nothing can be sent at all; empty if one of both IP versions works."""
        problems = [speaker.problem for speaker in self._speakers]
        if not problems:
            return self._refused or "it cannot be used"
        return problems[0] if all(problems) else ""

    def _heard_of_trouble(self) -> None:
        """A firewall may come and go while nothing else changes."""
        if self._told is not None and self._probing is None:
            self._say_answering()

    def _say_answering(self) -> None:
        if problem := self._problem():
            self._hindered(problem)
        else:
            self._say_state(State(Progress.ANSWERING))

    def _hindered(self, reason: str) -> None:
        self._say_state(State(Progress.HINDERED, reason))

    def _say_state(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self._changed()

    def _open(self) -> None:
        self._shut()
        self._refused = ""
        loop = asyncio.get_running_loop()
        for version in (4, 6):
            if not self.interface.has(version):
                continue
            try:
                socket = Socket(self.interface, version)
            except OSError as error:
                self._refused = f"it cannot be used: UDP port {PORT}: {error.strerror or error}"
                continue
            speaker = Speaker(socket, self._heard_of_trouble)
            self._speakers.append(speaker)
            loop.add_reader(socket.fileno(), self._readable, speaker)

    def _shut(self) -> None:
        for speaker in self._speakers:
            asyncio.get_running_loop().remove_reader(speaker.socket.fileno())
            speaker.close()
        self._speakers.clear()

    def _readable(self, speaker: Speaker) -> None:
        now = asyncio.get_running_loop().time()
        for _ in range(_BATCH):
            try:
                datagram = speaker.socket.receive()
            except OSError as error:
                speaker.problem = f"nothing can be received: {error.strerror or error}"
                return
            if datagram is None:
                return
            # A datagram for this machine alone may come to the socket of another interface.
            if datagram.number == self.interface.number and self._looked_at.take("", 1, now):
                self.read(datagram, speaker)

    def read(self, datagram: Datagram, speaker: Speaker) -> None:
        """Take one datagram from anyone."""
        lower = datagram.data.lower()
        claimed = self._owner.claims
        if not any(word in lower for word in (claimed.service[0], b"_dns-sd", claimed.host[0])):
            return
        packet = wire.parse(datagram.data)
        if packet is None:
            return
        if packet.response:
            self._read_response(packet, datagram)
            return
        if packet.authorities and self._probing is not None:
            self._compare(packet.authorities, self._probing)
        if self._told is not None:
            self._answer(packet, datagram, speaker, self._told)

    def _read_response(self, packet: Packet, datagram: Datagram) -> None:
        claims = self._probing or self._told
        unique = claims.unique if claims else frozenset()
        for record in (*packet.answers, *packet.additionals):
            name = wire.folded(record.name)
            if self._owner.is_own(record):
                if record.ttl < _SHORT_TTL and self._told is not None:
                    self._rescue()
            elif record.type == wire.PTR and name == self._owner.claims.service:
                self._owner.heard(wire.read_ptr(record.data), record.ttl, datagram.source)
            elif name in unique and record.ttl and record.type != wire.NSEC:
                self._contested(record, datagram.source)

    def _contested(self, record: Record, teller: Ip) -> None:
        """Another machine has another record under a name of ours."""
        if self._probing is not None:
            self._conflict = self._conflict or (record, teller)
            return
        now = asyncio.get_running_loop().time()
        if not self._owner.insists and now - self._defended >= _DEFEND_SECONDS:
            # Probe again while still answering: a machine that only sends records has not claimed the name.
            self._defended = now
            self._claimed = frozenset()
            self._dirty.set()

    def _rescue(self) -> None:
        """Another machine takes back a record of ours that still holds: announce it again (section 6.6)."""
        now = asyncio.get_running_loop().time()
        if now - self._rescued >= _ANNOUNCE_SECONDS and self._told is not None:
            self._rescued = now
            for speaker in self._speakers:
                speaker.answer(self._told.all(self._told_ips), (), alone=True)

    def _compare(self, theirs: Iterable[Record], claims: Claims) -> None:
        """Two machines probe for one name: the one with the greater records gets it (section 8.2)."""
        by_name: dict[Name, list[tuple[int, bytes]]] = {}
        for record in theirs:
            by_name.setdefault(wire.folded(record.name), []).append((record.type, record.data))
        for name in claims.unique & by_name.keys():
            ours = [
                (record.type, record.data)
                for record in claims.all(self.ips)
                if wire.folded(record.name) == name and record.unique and record.type != wire.NSEC
            ]
            if sorted(by_name[name]) > sorted(ours):
                self._deferred = True

    def _answer(self, packet: Packet, datagram: Datagram, speaker: Speaker, told: Claims) -> None:
        known = {record.key for record in packet.answers if record.ttl >= _SHORT_TTL}
        answers: dict[tuple[Name, int, bytes], Record] = {}
        additionals: dict[tuple[Name, int, bytes], Record] = {}
        for question in packet.questions:
            wanted, more = answers_to(question, told, self._told_ips)
            answers.update((each.key, each) for each in wanted if each.key not in known)
            additionals.update((each.key, each) for each in more)
        if not answers:
            return
        rest = [each for key, each in additionals.items() if key not in answers]
        legacy = datagram.port != PORT
        if legacy or datagram.unicast or all(one.unicast for one in packet.questions):
            self._answer_alone(list(answers.values()), rest, packet, datagram, speaker, legacy=legacy)
        else:
            alone = all(each.unique for each in answers.values())
            speaker.answer(list(answers.values()), rest, alone=alone)

    def _answer_alone(
        self,
        answers: list[Record],
        additionals: list[Record],
        packet: Packet,
        datagram: Datagram,
        speaker: Speaker,
        *,
        legacy: bool,
    ) -> None:
        """Answer one machine, if it is on this link: the address of another sender is forged."""
        source = datagram.source
        if not self.interface.on_link(source) or not datagram.port:
            return
        if not self._alone.take(str(source), 1, asyncio.get_running_loop().time()):
            return
        number, questions = 0, []
        if legacy:
            number, questions = packet.number, [one._replace(unicast=False) for one in packet.questions[:8]]
            answers = [each._replace(ttl=min(each.ttl, _LEGACY_TTL), unique=False) for each in answers]
            additionals = [
                each._replace(ttl=min(each.ttl, _LEGACY_TTL), unique=False)
                for each in additionals
                if each.type != wire.NSEC
            ]
        with contextlib.suppress(OSError):
            for data in wire.responses(answers, additionals, number=number, questions=questions):
                speaker.socket.send(data, source, datagram.port)


def answers_to(question: Question, told: Claims, ips: Sequence[Ip]) -> tuple[list[Record], list[Record]]:
    """The records that answer a question, and those that the asker will want next.

    Args:
        question: from anyone.
        told: the claimed names.
        ips: addresses that are announced on the interface of the question.
    """
    name = wire.folded(question.name)

    def asked(records: Iterable[Record]) -> list[Record]:
        return [each for each in records if question.type in (each.type, wire.ANY)]

    addresses = told.addresses(ips)
    if name in (told.service, META_NAME):
        found = asked(each for each in told.pointers() if each.name == name)
        if not found or name == META_NAME:
            return found, []
        own = [each for one, _ in told.instances for each in told.instance(wire.folded(one))]
        return found, [*own, *addresses]
    if name == wire.folded(told.host):
        found = asked(addresses)
        kinds = {each.type for each in addresses}
        if not found and question.type in (wire.A, wire.AAAA):
            # The host has no such address. To say so spares the asker a wait.
            found = [each for each in addresses if each.type == wire.NSEC]
        return found, [each for each in addresses if each not in found] if kinds else []
    found = asked(told.instance(name))
    return found, addresses if any(each.type == wire.SRV for each in found) else []


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait([task])
