"""The node's journal: which jobs it took and how they ended, so that it answers none twice after a restart.

One line for each event: the CRC-32 of the rest, a blank, JSON. A line that is torn or damaged is passed over
and counted: a power cut may leave one at the end. Those who wait for the disk in the event loop share one
fsync. The threads of jobs write, and wait for, the ends of their jobs themselves.
"""

import asyncio
import errno
import fcntl
import os
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zlib import crc32

import msgspec

from phase import files
from phase.errors import reason
from phase.foreign import MalformedError, read_json
from phase.jobs.status import Status
from phase.node.errors import StateError
from phase.peer.messages import State

#: Bytes of the file at which it is written anew without what is forgotten; later if little can be left out.
COMPACT_BYTES = 16 << 20
#: Bytes that are added before it is tried again, if the disk did not take the new file.
_RETRY_BYTES = 1 << 20
#: Most bytes that are read at the start; a file does not become longer.
_MAX_BYTES = 256 << 20
#: Two texts of 500 characters, of which each may take six bytes, and the rest.
_MAX_LINE = 8192


class Taken(msgspec.Struct, frozen=True, tag="taken", tag_field="event"):
    """The node took a job.

    Args:
        client: key of the client, hex.
        job: its id.
        module: hash of the module, hex.
        at: seconds since the epoch.
        detached: whether its result is kept for the client.
    """

    client: str
    job: str
    module: str
    at: float
    detached: bool = False


class Ended(msgspec.Struct, frozen=True, tag="ended", tag_field="event", omit_defaults=True):
    """A job ended.

    Args:
        client: key of the client, hex.
        job: its id.
        state: a final one.
        at: seconds since the epoch.
        status: how it ended, if it ran.
        detail: for people.
    """

    client: str
    job: str
    state: State
    at: float
    status: Status | None = None
    detail: str = ""


Event = Taken | Ended


def line(event: Event) -> bytes:
    """One line of the journal."""
    text = msgspec.json.encode(event)
    return b"%08x %b\n" % (crc32(text), text)


def parse(data: bytes) -> tuple[list[Event], int]:
    """Read lines.

    Args:
        data: of the file.

    Returns:
        The events in their order, and how many lines are damaged.
    """
    found: list[Event] = []
    damaged = 0
    for each in data.split(b"\n"):
        if not each:
            continue
        event = _event(each)
        if event is None:
            damaged += 1
        else:
            found.append(event)
    return found, damaged


def _event(text: bytes) -> Event | None:
    check, _, body = text.partition(b" ")
    if len(text) > _MAX_LINE or check != b"%08x" % crc32(body):
        return None
    try:
        return read_json(body, Event)
    except MalformedError:
        return None


class Journal:
    """The open journal of this process.

    Args:
        path: the file; made if it does not exist. Its directory exists.

    Raises:
        StateError: it cannot be read or written, or another node has it open.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._lock = _locked(path.parent)
            try:
                self._file = files.open_plain(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
                #: What was read at the start.
                self.events, self.damaged = parse(self._read())
            except BaseException:
                os.close(self._lock)
                raise
        except OSError as error:
            raise StateError(f"the journal {path} cannot be used: {reason(error)}") from error
        self.size = os.fstat(self._file).st_size
        # Whatever a torn line left, the next one begins on a line of its own.
        self._torn = self.size > 0
        self._compact_at = COMPACT_BYTES
        self._writing = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="phase-journal")
        self._waiting: list[asyncio.Future[None]] = []
        self._syncing: asyncio.Task[None] | None = None

    def append(self, event: Event) -> None:
        """Write an event. It outlives the process, though not yet a power cut: see `sync`. Any thread may.

        Raises:
            StateError: it cannot be written.
        """
        text = line(event)
        try:
            with self._writing:
                self._write(b"\n" * self._torn + text)
        except OSError as error:
            raise _unwritten(self._path, error) from error

    def _write(self, data: bytes) -> None:
        if self.size + len(data) > _MAX_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        count = os.write(self._file, data)
        self.size += count
        # A full disk took a part; the next line must not continue it, whenever there is room again.
        self._torn = count < len(data)
        if self._torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def record(self, event: Event) -> None:
        """Write an event, and wait until it is on the disk. In a thread that may wait.

        Raises:
            StateError: it cannot be written.
        """
        self.append(event)
        try:
            self._sync()
        except OSError as error:
            raise _unwritten(self._path, error) from error

    def _sync(self) -> None:
        # A descriptor of its own: the file may be written anew meanwhile, and the new one has all that the
        # old one had.
        with self._writing:
            file = os.dup(self._file)
        try:
            os.fdatasync(file)
        finally:
            os.close(file)

    async def sync(self) -> None:
        """Wait until everything that was appended is on the disk.

        Raises:
            StateError: the disk does not take it.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        if self._syncing is None:
            self._syncing = asyncio.get_running_loop().create_task(self._sync_all())
        await asyncio.shield(done)

    async def _sync_all(self) -> None:
        """One fsync for all that wait, and another one for those who came meanwhile."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            error: OSError | None = None
            try:
                await loop.run_in_executor(self._thread, self._sync)
            except OSError as caught:
                error = caught
            for each in waiting:
                _settle(each, error, self._path)
        self._syncing = None

    @property
    def overlong(self) -> bool:
        """Whether it is time to `compact`: not before the file has doubled since the last time."""
        return self.size > self._compact_at

    async def compact(self, events: Iterable[Event]) -> None:
        """Write the file anew with these events, and with those that are appended from now on.

        Args:
            events: all that must stay of what was appended so far.

        Raises:
            StateError: it cannot be written; the old one is still there.
        """
        begun, self._compact_at = self.size, _MAX_BYTES
        kept, again = list(events), 0
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._rewrite, kept, begun)
            again = max(COMPACT_BYTES, 2 * self.size)
        except OSError as error:
            raise StateError(f"the journal {self._path} cannot be written anew: {reason(error)}") from error
        finally:
            self._compact_at = again or self.size + _RETRY_BYTES

    def _rewrite(self, events: list[Event], begun: int) -> None:
        temporary = files.put_beside(self._path, b"".join(map(line, events)), mode=0o600)
        try:
            with self._writing:
                fresh = files.open_plain(temporary, os.O_RDWR | os.O_APPEND)
                try:
                    size = self._move(fresh, temporary, begun)
                except BaseException:
                    os.close(fresh)
                    raise
                # It has the name: whatever comes now, the old one has none, and takes nothing more.
                old, self._file, self.size = self._file, fresh, size
                os.close(old)
                files.sync_directory(self._path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _move(self, fresh: int, temporary: Path, begun: int) -> int:
        """Add to a new file what was appended meanwhile, and give it the name; returns its size."""
        left = os.pread(self._file, self.size - begun, begun)
        if os.write(fresh, left) < len(left):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fdatasync(fresh)
        size = os.fstat(fresh).st_size
        os.replace(temporary, self._path)
        return size

    def close(self) -> None:
        """Close it; what was appended is on the disk then."""
        self._thread.shutdown()
        os.fdatasync(self._file)
        os.close(self._file)
        os.close(self._lock)

    def _read(self) -> bytes:
        size = os.fstat(self._file).st_size
        if size > _MAX_BYTES:
            raise StateError(f"the journal {self._path} has {size} bytes; the limit is {_MAX_BYTES}")
        return os.pread(self._file, size, 0)


def _locked(directory: Path) -> int:
    """The lock of a node's directory, open; it ends with this process.

    Raises:
        StateError: another process has it.
        OSError: it cannot be opened.
    """
    opened = files.open_plain(directory / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(opened)
        raise StateError(
            f"another node runs in {directory}", hint="Give this one another --state."
        ) from None
    return opened


def _settle(done: "asyncio.Future[None]", error: OSError | None, path: Path) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(_unwritten(path, error))


def _unwritten(path: Path, error: OSError) -> StateError:
    return StateError(f"the journal {path} cannot be written: {reason(error)}")
