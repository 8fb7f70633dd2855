"""Shares counters between the processes of one provider, through memory that is made before they fork.

Each process writes its own row and reads the rows of the others, so there is nothing to lock. It updates the
number of its connections at once, and its other counters a few times a second. Any of them can answer for
all.
"""

import mmap
import secrets
import struct
import zlib
from collections import Counter
from hashlib import blake2b
from time import monotonic

import msgspec

from phase.provider.health import Health, Part, Problem
from phase.provider.lines import LOST
from phase.provider.metrics import Metrics
from phase.provider.peers import Peers, Seen, Table
from phase.provider.status import Advertisement
from phase.provider.store import Look, Store

#: Seconds between two reports of a process.
TELL_SECONDS = 0.1
_BUCKETS = 4096
#: Bytes for the report of one process; the kernel gives memory only as it is used.
_SPACE = 1 << 18
_COUNTS = 4 * (1 + _BUCKETS)
_HEAD = struct.Struct("<II")
#: What the parent writes of one process: whether it has ended, how often it was started anew, how it ended.
_STATE = struct.Struct("<BI60s")
_ROW = -(-(_COUNTS + _HEAD.size + _SPACE + _STATE.size) // 8) * 8
#: Limit for the damaged blobs in a report.
_MOST_DAMAGED = 256
#: A process that has not reported for this many seconds is a problem.
SILENT_SECONDS = 10.0


class Told(msgspec.Struct):
    """The report of one process to the others."""

    at: float
    started: float
    requests: dict[tuple[str, int], int]
    bytes_sent: dict[str, int]
    active: int
    connections: int
    idle_closed: int
    refused: dict[int, int]
    loads: int
    advertisement: Advertisement
    problems: list[Problem]
    failures: dict[str, int]
    lost_lines: dict[str, int]
    exhausted: int
    blobs: dict[str, int]
    damaged: dict[str, Look]
    peers: dict[str, list[Seen]]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Told)


class Row:
    """The place of one process.

    Args:
        memory: of all processes.
        number: of this process, from 0; process 0 advertises.
        salt: secret, so that clients cannot choose which others they share a counter with.
    """

    def __init__(self, memory: memoryview, number: int, salt: bytes) -> None:
        self.number = number
        self._salt = salt
        rows = [memory[start : start + _ROW] for start in range(0, len(memory), _ROW)]
        self._counts = [row[:_COUNTS].cast("I") for row in rows]
        self._said = [row[_COUNTS : _COUNTS + _HEAD.size + _SPACE] for row in rows]
        self._states = [row[_COUNTS + _HEAD.size + _SPACE :] for row in rows]
        #: The last readable report of each: a process that is writing its report just now is not gone.
        self._heard: dict[int, Told] = {}

    def count(self, client: str, change: int) -> None:
        """Count a connection that came (1) or went (-1)."""
        own, bucket = self._counts[self.number], self._bucket(client)
        own[0] += change
        own[bucket] += change

    def open(self, client: str) -> tuple[int, int]:
        """Connections of all clients, and of this client, in all processes.

        Clients can share a counter: with 4096 counters, two given clients do so once in 4096 times.
        """
        bucket = self._bucket(client)
        return sum(each[0] for each in self._counts), sum(each[bucket] for each in self._counts)

    def tell(self, told: Told) -> None:
        """Report to the others. A report that is too long is dropped."""
        data = _encoder.encode(told)
        if len(data) <= _SPACE:
            said = self._said[self.number]
            said[_HEAD.size : _HEAD.size + len(data)] = data
            _HEAD.pack_into(said, 0, len(data), zlib.crc32(data))

    def heard(self) -> dict[int, Told]:
        """The last reports of the others."""
        for number in range(len(self._said)):
            if number != self.number and (told := self._read(number)) is not None:
                self._heard[number] = told
        return self._heard

    def before(self) -> Told | None:
        """The last report of the process that had this row before."""
        return self._read(self.number)

    def problems(self) -> list[Problem]:
        """Processes that have ended, as their parent writes, or that do not report."""
        found, now = [], monotonic()
        heard = self.heard()
        for number, state in enumerate(self._states):
            down, restarts, reason = _STATE.unpack_from(state)
            if down:
                text = reason.rstrip(b"\0").decode("utf-8", "replace")
                found.append(
                    Problem(Part.WORKERS, f"worker {number} ended {text}; restarts so far: {restarts - 1}")
                )
            elif number in heard and (silent := now - heard[number].at) > SILENT_SECONDS:
                found.append(Problem(Part.WORKERS, f"worker {number} has not answered for {silent:.0f} s"))
        return found

    def workers(self) -> tuple[int, int]:
        """How many processes run, and how often one was started anew."""
        states = [_STATE.unpack_from(state) for state in self._states]
        return sum(not state[0] for state in states), sum(state[1] for state in states)

    def _read(self, number: int) -> Told | None:
        said = self._said[number]
        length, checksum = _HEAD.unpack_from(said)
        data = bytes(said[_HEAD.size : _HEAD.size + min(length, _SPACE)])
        # The checksum fails if the report was being written meanwhile.
        return _decoder.decode(data) if data and zlib.crc32(data) == checksum else None

    def _bucket(self, client: str) -> int:
        digest = blake2b(client.encode(), digest_size=4, key=self._salt).digest()
        return 1 + int.from_bytes(digest, "little") % _BUCKETS


class Board:
    """The shared memory. Make it before the processes fork.

    Args:
        processes: how many there will be.
    """

    def __init__(self, processes: int) -> None:
        self._memory = memoryview(mmap.mmap(-1, processes * _ROW))
        self._salt = secrets.token_bytes(16)

    def row(self, number: int) -> Row:
        """The row of one process, counted from 0."""
        return Row(self._memory, number, self._salt)

    def started(self, number: int) -> None:
        """A process is about to start. The connections of its predecessor have ended."""
        start = number * _ROW
        self._memory[start : start + _COUNTS] = bytes(_COUNTS)
        _, restarts, reason = self._state(number)
        _STATE.pack_into(self._memory, self._place(number), 0, restarts, reason)

    def ended(self, number: int, reason: str) -> None:
        """A process has ended although it should not."""
        start = number * _ROW
        self._memory[start : start + _COUNTS] = bytes(_COUNTS)
        restarts = self._state(number)[1] + 1
        _STATE.pack_into(self._memory, self._place(number), 1, restarts, reason.encode()[:60])

    def serving(self) -> bool:
        """Whether all processes have begun to serve."""
        rows = range(len(self._memory) // _ROW)
        return all(_HEAD.unpack_from(self._memory, number * _ROW + _COUNTS)[0] for number in rows)

    def _state(self, number: int) -> tuple[int, int, bytes]:
        down, restarts, reason = _STATE.unpack_from(self._memory, self._place(number))
        return down, restarts, reason

    def _place(self, number: int) -> int:
        return number * _ROW + _COUNTS + _HEAD.size + _SPACE


class Together:
    """The counters of this process, and those of all.

    Args:
        row: of this process; None if it is alone.
        metrics: its counters.
        advertisement: its advertisement.
        store: its repository.
        health: its problems.
    """

    def __init__(
        self,
        row: Row | None,
        metrics: Metrics,
        advertisement: Advertisement,
        store: Store,
        health: Health | None = None,
    ) -> None:
        self._health = health or Health()
        #: Machines that share what they fetch.
        self.peers = Peers(self._others_peers)
        self._row = row
        self._metrics = metrics
        self._advertisement = advertisement
        self._store = store
        if row is not None:
            self._health.add(row.problems)
            if (told := row.before()) is not None:
                _resume(metrics, told)

    def all(self) -> tuple[Metrics, Advertisement]:
        """The sums of all counters, and the advertisement of process 0."""
        own = self._told()
        heard = self._row.heard() if self._row else {}
        whole = Metrics()
        for told in (own, *heard.values()):
            whole.started = min(whole.started, told.started)
            whole.requests += Counter(told.requests)
            whole.bytes_sent += Counter(told.bytes_sent)
            whole.refused += Counter(told.refused)
            whole.active += told.active
            whole.connections += told.connections
            whole.idle_closed += told.idle_closed
            whole.loads = max(whole.loads, told.loads)
            whole.failures += Counter(told.failures)
            whole.lost_lines += Counter(told.lost_lines)
            whole.exhausted += told.exhausted
            whole.blobs.update(told.blobs)
        first = heard.get(0, own)
        return whole, first.advertisement

    def _others_peers(self) -> list[Table]:
        return [told.peers for told in self._row.heard().values()] if self._row else []

    def tell(self) -> None:
        """Report to the others, and learn which blobs process 0 has found damaged."""
        if self._row is None:
            return
        self._row.tell(self._told())
        if self._row.number != 0 and (first := self._row.heard().get(0)) is not None:
            self._store.damaged = first.damaged

    async def tell_all(self) -> None:
        """The same, as a task."""
        self.tell()

    def problems(self) -> list[Problem]:
        """The problems of all processes."""
        heard = self._row.heard() if self._row else {}
        return sorted({*self._health.problems(), *(one for told in heard.values() for one in told.problems)})

    def workers(self) -> tuple[int, int]:
        """How many processes run, and how often one was started anew."""
        return self._row.workers() if self._row else (1, 0)

    def _told(self) -> Told:
        own = self._metrics
        return Told(
            monotonic(),
            own.started,
            own.requests,
            own.bytes_sent,
            own.active,
            own.connections,
            own.idle_closed,
            own.refused,
            self._store.loads,
            self._advertisement,
            self._health.problems(),
            own.failures,
            own.lost_lines + LOST,
            own.exhausted,
            own.blobs,
            dict(list(self._store.damaged.items())[:_MOST_DAMAGED]),
            self.peers.own,
        )


def _resume(metrics: Metrics, told: Told) -> None:
    """Continue the counters of the predecessor: a counter that falls looks like a new provider."""
    metrics.started = told.started
    metrics.requests.update(told.requests)
    metrics.bytes_sent.update(told.bytes_sent)
    metrics.refused.update(told.refused)
    metrics.failures.update(told.failures)
    metrics.lost_lines.update(told.lost_lines)
    metrics.idle_closed += told.idle_closed
    metrics.exhausted += told.exhausted
