"""Who may use how much of this host: one pool for every worker of every test runner.

A scenario takes its whole lease before it starts anything, and holds it until everything is gone again, so
no scenario waits while it holds something. A lease is a file that its holder keeps locked: when the holder
is killed, the kernel opens the lock, and the next process that looks removes the file. No process runs
this pool.
"""

import contextlib
import fcntl
import functools
import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import psutil

from lab import locks
from lab.doctor.examine import processors
from lab.errors import InfrastructureError, MisuseError

#: MiB that stay free for everything else, QEMU's own needs among it.
RESERVE = 1024
#: Seconds after which those who came later no longer pass by.
PATIENCE = 180.0
#: Seconds after which one who waits is told again.
AGAIN = 60.0
#: Processors leased for each there is. Needs are averages: a machine that boots waits for its disk, its
#: network and its scenario between, and where no more is leased than there is, a fifth of it stays idle.
OVERLAP = 1.25
#: The same where the host is seen to be idle in spite of what is leased: most needs are guessed too high.
MOST = 2.0
#: Seconds for which processors must have been idle, and since which no test has taken a lease: a machine
#: that was just switched on is not at work yet.
SETTLED = 4.0
_POLL = 0.1


@dataclass(frozen=True)
class Need:
    """What a scenario needs of the host.

    Attributes:
        vcpus: virtual processors that work at the same time: machines started one after another need one,
            and those that mostly wait a part of one. More than one, and no fewer than the host has, means
            that no other scenario uses any meanwhile.
        memory: MiB of all its machines together.
        boards: names of boards; no other scenario gets them meanwhile.
    """

    vcpus: float = 1
    memory: int = 2048
    boards: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.vcpus < 0 or self.memory < 0 or not all(self.boards):
            raise MisuseError(
                f"{self} is not a need that can be leased: nothing in it may be below 0 or empty"
            )

    def whole(self, cpus: int) -> bool:
        """Whether it is a host with so many processors for itself."""
        return self.vcpus > 1 and self.vcpus >= cpus


@dataclass(frozen=True)
class Held:
    """A lease that somebody has.

    Attributes:
        who: for messages.
        need: what for.
        pid: the process whose machines use it; 0 when there are none.
    """

    who: str
    need: Need
    pid: int = 0

    @functools.cached_property
    def unused(self) -> int:
        """MiB of it that his machines do not use yet. Looked up when asked for: that costs some."""
        return max(0, self.need.memory - (_used(self.pid) if self.pid else 0))


@dataclass(frozen=True)
class Host:
    """What there is to lease: processors, and MiB available at this moment, of so many in all."""

    cpus: int
    available: int
    memory: int = sys.maxsize


def short(need: Need, held: Sequence[Held], host: Host, *, idle: float = 0) -> str:
    """What keeps a need from being met; empty when nothing does.

    Args:
        need: what is asked for.
        held: what others have.
        host: what there is. Memory that machines use already is no longer available; what was promised
            to them and is not used yet is counted off here.
        idle: processors that were idle of late, whatever is leased. Who needs no more than these gets them,
            as long as no more than `MOST` is leased.
    """
    taken = {board: lease.who for lease in held for board in lease.need.boards}
    for board in need.boards:
        if board in taken:
            return f"board {board} is with {taken[board]}"
    for lease in held:
        if need.vcpus and lease.need.whole(host.cpus):
            return f"{lease.who} has the host for itself"
    there = host.cpus if need.whole(host.cpus) else host.cpus * OVERLAP
    leased = sum(lease.need.vcpus for lease in held)
    cpus = there - leased
    spare = not need.whole(host.cpus) and need.vcpus <= min(idle, host.cpus * MOST - leased)
    if min(need.vcpus, host.cpus) > max(cpus, 0) and not spare:
        return f"{need.vcpus:g} processors are needed, {max(cpus, 0):g} of {there:g} are free"
    memory = host.available - RESERVE - sum(lease.unused for lease in held)
    if need.memory > memory:
        return f"{need.memory} MiB are needed, {max(memory, 0)} are free"
    return ""


class Idleness:
    """Watches how many processors of this host are idle."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque()

    def processors(self, now: float, idle: float) -> float:
        """Take a sample; returns how many were idle over the last `SETTLED` seconds.

        Args:
            now: seconds, of any clock that goes on.
            idle: seconds that all processors together have been idle so far.

        Returns:
            Their number on average; 0 before as many seconds were watched.
        """
        self._samples.append((now, idle))
        while len(self._samples) > 1 and now - self._samples[1][0] >= SETTLED:
            self._samples.popleft()
        began, before = self._samples[0]
        return (idle - before) / (now - began) if now - began >= SETTLED else 0.0


class Lease:
    """What somebody holds; `acquire` makes them.

    Attributes:
        need: what it is.
        waited: seconds until it was there.
    """

    def __init__(self, need: Need, waited: float, descriptor: int, path: Path) -> None:
        self.need = need
        self.waited = waited
        self._descriptor = descriptor
        self._path = path

    def release(self) -> None:
        """Give it back. Safe to call again."""
        if self._descriptor >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> "Lease":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def acquire(
    need: Need,
    *,
    who: str,
    timeout: float = 3600,
    on_wait: Callable[[str], None] = lambda reason: None,
    look: "Callable[[], Host] | None" = None,
) -> Lease:
    """Wait until a need can be met, and take it whole.

    First come, first served, but small needs may pass a large one that has not waited long: so the host
    stays full, and none waits for ever.

    Args:
        need: all of it.
        who: asks, for the messages of those who wait.
        timeout: seconds to wait at most.
        on_wait: told what there is to wait for, and who holds it, once a minute.
        look: says what there is; `LAB_LEASES` and this host when left out.

    Raises:
        InfrastructureError: it could not be met in time.
        MisuseError: this host will never have as much memory, or what `LAB_LEASES` names is not ours.
    """
    look = look or this_host
    if need.memory + RESERVE > look().memory:
        raise MisuseError(
            f"{who} needs {need.memory} MiB, and {RESERVE} stay free; this host has {look().memory} in all"
        )
    pool = directory()
    began = time.time_ns()
    start = time.monotonic()
    ticket = _claim(pool / f"wait-{began:020d}-{os.getpid()}", {"who": who, "began": began})
    idleness = Idleness()
    try:
        tell = start
        while True:
            idle = idleness.processors(time.monotonic(), psutil.cpu_times().idle)
            with _locked(pool):
                idle = idle if _settled(pool) else 0.0
                reason = _older(pool, began) or short(need, holders(pool), look(), idle=idle)
                if not reason:
                    name = f"lease-{began:020d}-{os.getpid()}"
                    fields = {"who": who, "pid": os.getpid(), "need": asdict(need)}
                    descriptor = _claim(pool / name, fields)
                    return Lease(need, time.monotonic() - start, descriptor, pool / name)
            if time.monotonic() >= tell:
                tell += AGAIN
                on_wait(f"{reason}{_named(holders(pool))}")
            if time.monotonic() - start > timeout:
                raise InfrastructureError(
                    f"{who}: no lease within {timeout:.0f} s: {reason}",
                    evidence="\n".join(f"{lease.who} holds {lease.need}" for lease in holders(pool)),
                )
            time.sleep(_POLL)
    finally:
        (pool / f"wait-{began:020d}-{os.getpid()}").unlink(missing_ok=True)
        os.close(ticket)


def holders(pool: Path) -> list[Held]:
    """Every lease that is held; what the dead have left is removed."""
    found = []
    for path in _alive(pool, "lease-*"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            fields = json.loads(path.read_bytes())
            need = Need(**(fields["need"] | {"boards": tuple(fields["need"]["boards"])}))
            found.append(Held(str(fields["who"]), need, int(fields["pid"])))
    return found


def this_host() -> Host:
    """This host as it is now."""
    memory = psutil.virtual_memory()
    return Host(processors(), memory.available >> 20, memory.total >> 20)


def directory() -> Path:
    """Where leases lie: `LAB_LEASES`, or one place for every runner of this user.

    Raises:
        MisuseError: it belongs to somebody else, or cannot be written.
    """
    # Not the runner's TMPDIR: runners with different ones share a host all the same.
    chosen = os.environ.get("LAB_LEASES") or f"/tmp/lab-leases-{os.geteuid()}"  # noqa: S108  checked below
    path = Path(chosen)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = path.lstat()
    except OSError as error:
        raise MisuseError(
            f"leases cannot be kept in {path}: {error.strerror}; set LAB_LEASES to a directory of your own"
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise MisuseError(f"leases cannot be kept in {path}: read-only; set LAB_LEASES to another directory")
    if not path.is_dir() or path.is_symlink() or state.st_uid != os.geteuid():
        raise MisuseError(f"{path} is not this user's own directory; set LAB_LEASES to one that is")
    return path


def _used(pid: int) -> int:
    """MiB that the machines of a process use; pages that clones share count once."""
    total = 0
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error, OSError):
                told = child.memory_full_info()
                # Only Linux shares out what is shared.
                total += getattr(told, "pss", told.uss)
    return total >> 20


def _named(held: Sequence[Held]) -> str:
    """Who holds leases, for one who waits."""
    if not held:
        return ""
    return "; held by " + ", ".join(f"{lease.who} (pid {lease.pid})" for lease in held)


def _older(pool: Path, began: int) -> str:
    """Who came earlier and has waited too long to be passed."""
    for path in _alive(pool, "wait-*"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            fields = json.loads(path.read_bytes())
            if fields["began"] < began and time.time_ns() - fields["began"] > PATIENCE * 1e9:
                return f"{fields['who']} has waited longer"
    return ""


def _settled(pool: Path) -> bool:
    """Whether the last lease was taken some time ago."""
    taken = []
    for path in pool.glob("lease-*"):
        with contextlib.suppress(FileNotFoundError):  # given back meanwhile
            taken.append(path.stat().st_mtime)
    return time.time() - max(taken, default=0) >= SETTLED


def _alive(pool: Path, pattern: str) -> Iterator[Path]:
    """Files whose maker lives, oldest first; removes the others."""
    for path in sorted(pool.glob(pattern)):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield path
        else:
            path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _claim(path: Path, fields: object) -> int:
    """Make a file that is locked before anybody can see it; returns the descriptor that holds the lock."""
    temporary = path.with_name(f".{path.name}")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(descriptor, json.dumps(fields).encode())
        temporary.replace(path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _locked(pool: Path) -> contextlib.AbstractContextManager[None]:
    """One decision at a time."""
    return locks.exclusive(pool / "lock", 0o600)
