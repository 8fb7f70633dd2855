"""The chunks of an artifact that are still missing, and the providers that fetch them."""

import os
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from threading import Condition, Thread
from time import monotonic
from typing import Protocol

from phase import files
from phase.digest import sha256_hex
from phase.fetch.others import RUN, WORTH_BREAKING, Others, bit, bitmap_of

#: Bytes of one request while several providers share the work: at most, and of a large file at least. Each
#: request costs a provider about as much as 100 kB.
MAX_RUN, LEAST_RUN = 16 << 20, 1 << 20
#: Seconds between two looks whether a provider must help other machines out.
_LOOK_SECONDS = 0.1


class Wanted(Protocol):
    """The description of an artifact to fetch; see the manifest's `Artifact`."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def length(self) -> int:
        """Bytes."""

    @property
    def sha256(self) -> str:
        """Of the whole, lower-case hex."""

    @property
    def starts(self) -> Sequence[int]:
        """Where each chunk starts, and where the last one ends, bytes."""

    @property
    def chunks(self) -> Sequence[str]:
        """SHA-256 of each chunk, lower-case hex."""


class Chunks(Protocol):
    """Chunks that are on this machine; see `phase.fetch.here.Here`."""

    def get(self, sha256: str, size: int) -> bytes | None:
        """What should be the chunk of this hash and size, not verified; None if it is not here."""


class Transfer:
    """The chunks that are still missing, shared by the threads of all providers.

    Args: as of `fetch_artifact`.
    """

    def __init__(
        self,
        artifact: Wanted,
        out_fd: int,
        offset: int,
        deadline: float,
        progress: Callable[[int, int], None] | None,
        keep_fd: int | None,
    ) -> None:
        self.artifact = artifact
        self.unkept = ""
        self._keep_fd = keep_fd
        self.deadline = deadline
        self.providers = 1
        #: The chunk behind those that a provider was asked for last while others share.
        self._next = -1
        #: Machines that fetch the same, and share.
        self.others = Others()
        self.failure: BaseException | None = None
        self.missing = len(artifact.chunks)
        #: Bytes of the longest chunk.
        self.longest = max((end - start for start, end in pairwise(artifact.starts)), default=1)
        self._fd = out_fd
        self._offset = offset
        self._progress = progress
        self._done = bytearray(len(artifact.chunks))
        self._pending = deque(range(len(artifact.chunks)))
        #: Providers that read the whole file from its start.
        self._streams = 0
        #: Chunk -> how many providers are fetching it.
        self._holders: dict[int, int] = {}
        self._bytes = 0
        self._changed = Condition()
        #: Whether no more chunks will arrive, and whether a reader waits for each chunk.
        self._ended = False
        self._awaited = False

    def size(self, index: int) -> int:
        """Bytes of a chunk."""
        return _size(self.artifact, index)

    def keep_present(self) -> int:
        """Take over the chunks that the file holds already; returns their bytes."""
        for index, block in verified(self.artifact, self._fd, self._offset):
            self._done[index] = 1
            self.missing -= 1
            self._bytes += len(block)
        self._pending = deque(index for index, done in enumerate(self._done) if not done)
        return self._bytes

    def copy(self, here: Chunks) -> int:
        """Take missing chunks from other files of this machine; returns their bytes."""
        before = self._bytes
        for index in list(self._pending):
            expected, size = self.artifact.chunks[index], self.size(index)
            block = here.get(expected, size)
            if block is not None and len(block) == size and sha256_hex(block) == expected:
                self.add(index, memoryview(block))
        return self._bytes - before

    def has(self, index: int) -> bool:
        """Whether a chunk is there already."""
        return bool(self._done[index])

    def arrives(self, index: int) -> bool:
        """Wait for a chunk; false when it does not come."""
        with self._changed:
            self._awaited = True
            while not self._done[index] and not self._ended and self.failure is None:
                self._changed.wait()
            return bool(self._done[index])

    def read(self, index: int) -> bytes:
        """A chunk that has arrived, from the file."""
        return os.pread(self._fd, self.size(index), self._offset + self.artifact.starts[index])

    def peek(self, start: int, size: int) -> bytes:
        """Bytes of the artifact that are here, verified or not; fewer, where the file ends."""
        return os.pread(self._fd, size, self._offset + start)

    def end(self) -> None:
        """No more chunks will arrive: wake the readers that wait for one."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def begin_stream(self, run: range) -> None:
        """A provider sends all chunks from the first on, without requests; `run`, which it held, is free.

        While it does, the others begin at the end.
        """
        self.give_back(run)
        with self._changed:
            self._streams += 1

    def end_stream(self) -> None:
        """It does no longer."""
        with self._changed:
            self._streams -= 1

    def bitmap(self) -> bytes:
        """The chunks that are there, as `phase.fetch.others` describes it."""
        return bitmap_of(self._done)

    def going(self) -> bool:
        """Whether chunks are still wanted."""
        return bool(self.missing) and self.failure is None and monotonic() < self.deadline

    def pause(self, seconds: float) -> None:
        """Wait for so long, or until no more chunks are wanted."""
        end = monotonic() + seconds
        with self._changed:
            while self.going() and (left := end - monotonic()) > 0:
                self._changed.wait(left)

    def counted(self, machines: int) -> None:
        """So many machines fetch the same, as a provider says."""
        with self._changed:
            self.others.machines = machines

    def told(self, who: str, bitmap: bytes) -> None:
        """Another machine has these chunks."""
        with self._changed:
            self.others.set(who, bitmap)

    def lost(self, who: str) -> None:
        """Another machine is gone."""
        with self._changed:
            self.others.drop(who)
            self._changed.notify_all()

    def take_from(self, bitmap: bytes) -> range:
        """Chunks for one request to another machine, of those that it has; empty when there are none now."""
        with self._changed:
            if not self.going():
                return range(0)
            if self._pending:
                return self._somewhere(lambda index: bit(bitmap, index))
            alone = [index for index, count in self._holders.items() if count == 1 and bit(bitmap, index)]
            return self._double(alone[_random(len(alone))]) if alone else range(0)

    def leaves(self, run: range, index: int) -> bool:
        """Whether to break off an answer before a chunk: others have come, and may have the rest."""
        starts = self.artifact.starts
        return bool(self.others) and starts[run.stop] - starts[index] > WORTH_BREAKING

    def _apart(self) -> range:
        """Chunks to ask a provider for that no other machine has; empty as long as the others will do."""
        run = range(0)
        if not self.others.turn():
            return run
        if self._pending:
            run = self._somewhere(lambda index: not bit(self.others.any, index), self._next)
        if run or not self.others.slow():
            self._next = run.stop
            return run
        if self._pending:
            return self._somewhere(lambda _: True)
        return self._double(self._least_held()) if self._holders else range(0)

    def _somewhere(self, wanted: Callable[[int], bool], near: int = -1) -> range:
        """Take wanted neighbours: behind those before them where they are wanted, otherwise anywhere."""
        pending, starts = list(self._pending), self.artifact.starts
        turn = bisect_left(pending, near)
        if near < 0 or turn == len(pending) or pending[turn] != near or not wanted(near):
            turn = _random(len(pending))
        first = next((index for index in (*pending[turn:], *pending[:turn]) if wanted(index)), None)
        if first is None:
            return range(0)
        position = bisect_left(pending, first)
        run = range(first, first + 1)
        for index in pending[position + 1 :]:
            if index != run.stop or starts[index + 1] - starts[first] > RUN or not wanted(index):
                break
            run = range(first, index + 1)
        for index in run:
            del self._pending[position]
            self._holders[index] = self._holders.get(index, 0) + 1
        return run

    def _least_held(self) -> int:
        return min(self._holders, key=lambda each: (self._holders[each], -each))

    def _double(self, index: int) -> range:
        self._holders[index] += 1
        return range(index, index + 1)

    def take(self) -> range:
        """Neighbouring chunks for one request; empty when there is nothing left to do.

        Waits while others hold the last chunks, in case they drop them. When all is asked for, a
        free provider doubles the work of a slower one: the last chunks decide how long it takes.
        """
        with self._changed:
            while self.missing and self.failure is None:
                if self.others:
                    if run := self._apart():
                        return run
                    if (left := self.deadline - monotonic()) <= 0:
                        break
                    self._changed.wait(min(left, _LOOK_SECONDS))
                    continue
                if self._pending:
                    return self._next_run()
                if self._holders:
                    # The provider that asks holds no chunks. It may help, however many slow ones there are.
                    return self._double(self._least_held())
                left = self.deadline - monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            return range(0)

    def _next_run(self) -> range:
        run = self._run(self._streams > 0)
        for index in run:
            self._holders[index] = self._holders.get(index, 0) + 1
        return run

    def _run(self, last: bool) -> range:
        """Take neighbours: the first missing chunks, or the last.

        Several providers each take a share of what is left, so that all end at the same time.
        """
        starts, length = self.artifact.starts, self.artifact.length
        limit, least, most = len(self._pending), 0, length
        if self.providers > 1:
            limit = limit // (2 * self.providers)
            least, most = min(LEAST_RUN, length // (4 * self.providers)), MAX_RUN
        index = self._pending.pop() if last else self._pending.popleft()
        run = range(index, index + 1)
        while self._pending:
            index = self._pending[-1] if last else self._pending[0]
            more = range(index, run.stop) if last else range(run.start, index + 1)
            size = starts[more.stop] - starts[more.start]
            if len(more) != len(run) + 1 or size > most or (len(run) >= limit and size > least):
                break
            self._pending.pop() if last else self._pending.popleft()
            run = more
        return run

    def give_back(self, run: range) -> None:
        """The provider that holds these chunks will not deliver them."""
        with self._changed:
            for index in reversed(run):
                self._release(index)
                if not self._done[index] and index not in self._holders:
                    self._insert(index)
            self._changed.notify_all()

    def _insert(self, index: int) -> None:
        position = bisect_left(self._pending, index)
        if position == len(self._pending) or self._pending[position] != index:
            self._pending.insert(position, index)

    def measured(self, size: int, seconds: float) -> None:
        """A provider has sent so many bytes in so many seconds."""
        with self._changed:
            self.others.asked(size, seconds)

    def add(self, index: int, data: memoryview, *, shared: bool = False) -> bool:
        """Write a verified chunk; false where another provider was quicker.

        Args:
            index: of the chunk.
            data: its bytes.
            shared: whether it came from another machine, not from a provider.
        """
        if self.has(index):
            return False
        start = self.artifact.starts[index]
        files.pwrite(self._fd, data, self._offset + start)
        if self._keep_fd is not None and not self.unkept:
            try:
                files.pwrite(self._keep_fd, data, start)
            except OSError as error:
                self.unkept = error.strerror or str(error)
        with self._changed:
            if self._done[index]:
                return False
            self._done[index] = 1
            # Others must not help a slower provider that is still fetching this chunk.
            self._holders.pop(index, None)
            position = bisect_left(self._pending, index)
            if position < len(self._pending) and self._pending[position] == index:
                del self._pending[position]
            self.missing -= 1
            self._bytes += len(data)
            self.others.came(len(data), shared=shared)
            if not self.missing or self._awaited:
                self._changed.notify_all()
        if self._progress is not None:
            self._progress(self._bytes, self.artifact.length)
        return True

    def fail(self, error: BaseException) -> None:
        """A failure that no other provider can repair, such as a full disk."""
        with self._changed:
            self.failure = self.failure or error
            self._changed.notify_all()

    def wait(self, threads: list[Thread]) -> None:
        """Wait until it is complete or has failed, no provider is left, or the time is up."""
        with self._changed:
            while self.missing and self.failure is None and any(thread.is_alive() for thread in threads):
                left = self.deadline - monotonic()
                if left <= 0:
                    return
                # A thread that ends without a call of `add` or `fail` does not notify.
                self._changed.wait(min(left, 0.02))

    def _release(self, index: int) -> None:
        left = self._holders.get(index, 0) - 1
        if left > 0:
            self._holders[index] = left
        else:
            self._holders.pop(index, None)


def verified(artifact: Wanted, descriptor: int, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """The chunks of an artifact that a file holds already, each with its index."""
    for index, expected in enumerate(artifact.chunks):
        size = _size(artifact, index)
        block = os.pread(descriptor, size, offset + artifact.starts[index])
        if len(block) == size and sha256_hex(block) == expected:
            yield index, block


def _size(artifact: Wanted, index: int) -> int:
    return artifact.starts[index + 1] - artifact.starts[index]


def _random(below: int) -> int:
    """A number from 0 on. Not of `random`: its import costs a booting machine time."""
    return int.from_bytes(os.urandom(4), "big") % below
