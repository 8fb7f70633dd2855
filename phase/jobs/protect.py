"""Closes a worker's cage before it gets a job: it gives up root, and all that a module could misuse."""

import ctypes
import os
import resource
from collections.abc import Callable

from phase.jobs import calls, landlock, mounts
from phase.jobs.grant import Grant

#: Each worker is a user of its own, so that it cannot signal others: this number plus its process number,
#: which is below 2**22. Distributions, container managers and directory services stay below 2**31 (systemd,
#: "Users, Groups, UIDs and GIDs on systemd systems").
OWN = 0xE0000000
#: Number of the user `nobody` on every Linux, for a container with few users.
NOBODY = 65_534
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38
_CLONE_NEWIPC, _CLONE_NEWUSER, _CLONE_NEWNET, _CLONE_NEWNS = 0x08000000, 0x10000000, 0x40000000, 0x20000
_CAPABILITIES, _CAP_KILL = 64, 5
#: _LINUX_CAPABILITY_VERSION_3: two sets of 32 for each of effective, permitted, inheritable.
_CAPABILITY_VERSION = 0x20080522
_SIGKILL = 9
_MIB = 1 << 20
#: Private writable memory that a running job needs beside its own: threads' stacks, the engine's tables.
_SLACK = 64 * _MIB
#: Limits for a file, bytes (those in memory have a quota besides); and for what a job with files has open.
_FILE_BYTES, _FILES = 1 << 30, 256
#: Limits for threads: of a worker that is a user of its own, and of all that are `nobody`. An engine has
#: four.
_THREADS, _PROCESSES = 32, 512
#: Descriptor of /proc/self/statm, opened before the cage closes; -1 without /proc.
_statm = -1
#: The C library, once it is loaded.
_loaded: list[ctypes.CDLL] = []
#: Whether the bounding set of capabilities may be more than it could be: a process that forks many gives it
#: up once for all of them.
_unbounded = True
#: The one of those two limits that holds for this process; 0 for neither.
_threads = 0


def give_up(parent: int, grant: Grant | None = None, *, apart: bool = False) -> tuple[list[str], list[str]]:
    """Close the cage: drop the rights of this process, and every way to get them back.

    A protection that the kernel refuses is left out. It is reported if a module that broke out could make
    use of that: without the right to change users, in a container, the worker keeps its user.

    Args:
        parent: process that this one must not outlive.
        grant: the files that its job may have; None for no files.
        apart: whether it is in an empty network namespace already (`phase.jobs.apart`).

    Raises:
        OSError: what is granted cannot be had.

    Returns:
        The layers of the cage, by name; and the missing protections, a sentence each, usually empty.
    """
    global _statm, _threads
    libc = c_library()
    layers, missing = [], []
    try:
        _statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        _die_first()
    except OSError as error:
        missing.append(f"where memory runs out, another process may be ended: {error.strerror}")
    root = os.geteuid() == 0
    grant = grant or Grant()
    if _leave_network(libc, files=not grant.empty, apart=apart):
        layers.append("namespaces")
    if not grant.empty:
        mounts.enter(libc, grant)
        layers.append("mounts")
    # Files of the machine belong to the user who grants them, so the worker stays that user.
    if root and not grant.directories:
        missing += _leave_root(libc)
        _threads = {OWN + os.getpid(): _THREADS, NOBODY: _PROCESSES}.get(os.geteuid(), 0)
        layers += ["user"] if _threads == _THREADS else []
    # Another user may have been given capabilities, too.
    if not _drop_capabilities(libc):
        missing.append("it keeps its capabilities")
    for option, value, what in (
        (_PR_SET_NO_NEW_PRIVS, 1, "programs that it starts may gain privileges"),
        (_PR_SET_DUMPABLE, 0, "processes of its user can read its memory"),
        # Changing the user clears the death signal, so this comes after.
        (_PR_SET_PDEATHSIG, _SIGKILL, "it outlives a parent that is killed"),
    ):
        if libc.prctl(option, value, 0, 0, 0) != 0:
            missing.append(f"{what}: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:
        os._exit(1)
    if landlock.close(libc, _granted(grant)):
        layers.append("landlock")
    try:
        calls.close(libc, files=not grant.empty)
        layers.append("filter")
    except OSError as error:
        missing.append(f"the kernel does not filter its system calls: {error.strerror}")
    return layers, missing


def prepare() -> None:
    """Do ahead what each process that this one forks would do for itself."""
    try:
        for files in (False, True):
            calls.prepare(files)
    except OSError:
        pass  # each of them reports it
    bound()


def bound() -> None:
    """Give up what programs that this process or its children start could be given; as much as possible.

    That needs a capability itself. Its own capabilities this process keeps.
    """
    global _unbounded
    for capability in range(_CAPABILITIES):
        if c_library().prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            _unbounded = not capability
            return


def c_library() -> ctypes.CDLL:
    """The C library, with errno. To load it makes a class, so it is loaded once."""
    if not _loaded:
        _loaded.append(ctypes.CDLL(None, use_errno=True))
    return _loaded[0]


def _die_first() -> None:
    """When the machine runs out of memory, the kernel ends a job first, and not its provider."""
    descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, b"1000")
    finally:
        os.close(descriptor)


def _granted(grant: Grant) -> list[tuple[str, bool]]:
    """The granted directories by their new names, and whether they may be written to."""
    found = [(f"/{number}", writable) for number, (_, writable) in enumerate(grant.directories)]
    return [*found, (mounts.MEMORY, True)] if grant.memory_bytes else found


def _leave_network(libc: ctypes.CDLL, *, files: bool = False, apart: bool = False) -> bool:
    """Leave the network, and the shared memory and queues (System V) of others; whether that was possible.

    Without root this needs a user namespace, whose capabilities are dropped right after.

    Args:
        libc: the C library, with errno.
        files: leave the mounts of others, too.
        apart: it has left the network, and has what right it needs.
    """
    global _unbounded
    user, group = os.geteuid(), os.getegid()
    flags = _CLONE_NEWIPC | (_CLONE_NEWNS if files else 0)
    if not apart:
        flags |= _CLONE_NEWNET | (_CLONE_NEWUSER if user else 0)
    if libc.unshare(flags) != 0:
        return False
    _unbounded = _unbounded or bool(flags & _CLONE_NEWUSER)
    if files and user and not apart:
        mounts.own_user(user, group)
    return True


def _leave_root(libc: ctypes.CDLL) -> list[str]:
    """Become a user that no other process has; returns the rights of root that are left, a sentence each."""
    if not _may_kill(libc):
        # Its parent lacks the capability to end it, too, if it is another user.
        missing = ["it keeps the user root: without the capability to kill, its parent could not end it"]
    else:
        missing = []
        steps: tuple[tuple[str, Callable[[int], None]], ...] = (
            ("it keeps its supplementary groups", lambda _: os.setgroups([])),
            ("it keeps the group of root", lambda number: os.setresgid(number, number, number)),
            ("it keeps the user root", lambda number: os.setresuid(number, number, number)),
        )
        for what, drop in steps:
            try:
                try:
                    drop(OWN + os.getpid())
                except OSError:
                    drop(NOBODY)
            except OSError as error:
                missing.append(f"{what}: {os.strerror(error.errno or 0)}")
    return missing


def _may_kill(libc: ctypes.CDLL) -> bool:
    """Whether this thread may signal processes of other users."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    # Twice effective, permitted, inheritable.
    sets = (ctypes.c_uint32 * 6)()
    return libc.capget(header, sets) == 0 and bool(sets[0] >> _CAP_KILL & 1)


def _drop_capabilities(libc: ctypes.CDLL) -> bool:
    """Empty this thread's capabilities; whether none is left."""
    if _unbounded:
        bound()
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    none = (ctypes.c_uint32 * 6)()
    return bool(libc.capset(header, none) == 0)


def limit(*, wall_seconds: int, grant: Grant | None = None) -> None:
    """Set the limits that hold for the whole life of the process.

    Args:
        wall_seconds: of the job; its processor time cannot be more.
        grant: its files; None for no files.
    """
    grant = grant or Grant()
    file_bytes = _FILE_BYTES if grant.writable or grant.memory_bytes else 0
    used = resource.getrusage(resource.RUSAGE_SELF)
    for kind, value in (
        (resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + wall_seconds + 2),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 32 if grant.empty else _FILES),
        # Counts every process of the user, so it is set only for a user that has no others.
        *(((resource.RLIMIT_NPROC, _threads),) if _threads else ()),
    ):
        _lower(kind, value)


def limit_compiler(compile_bytes: int) -> None:
    """Limit the process while it compiles.

    Args:
        compile_bytes: private memory beside what it has already.
    """
    # RLIMIT_DATA counts private writable pages, so the engine may still reserve address space
    # for fast bounds checks, which RLIMIT_AS would forbid.
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = _private() + compile_bytes
    if hard != resource.RLIM_INFINITY:
        allowed = min(allowed, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))


def limit_memory(memory_bytes: int, *, freed: bool) -> None:
    """Limit the process to what it has once the module is compiled, and the job's memory.

    Args:
        memory_bytes: of the job.
        freed: whether it has freed memory, by compiling, which must not count as the job's.
    """
    libc = c_library()
    if freed and hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    _lower(resource.RLIMIT_DATA, _private() + memory_bytes + _SLACK)


def _lower(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _private() -> int:
    """Private writable bytes of this process, as RLIMIT_DATA counts them; a guess without /proc."""
    try:
        return int(os.pread(_statm, 200, 0).split()[5]) * resource.getpagesize()
    except OSError:
        return 2 * _SLACK
