"""Gives a worker a root directory that holds what its job is granted, and nothing else.

In a mount namespace of its own, the worker makes a root in memory, puts the granted directories below it,
and leaves the machine's root. What is not below it has no name any more: not by `..`, not by a link, not by
/proc.
"""

import ctypes
import os

from phase.jobs.grant import Grant

#: MS_NOSUID, MS_NODEV, MS_NOEXEC; MS_RDONLY, MS_REMOUNT, MS_BIND; MS_REC, MS_PRIVATE (linux/mount.h).
_HARMLESS, _READ_ONLY_AGAIN, _PRIVATE = 2 | 4 | 8, 1 | 32 | 4096, 1 << 14 | 1 << 18
#: The same for mount_setattr: RDONLY, NOSUID, NODEV, NOEXEC.
_ATTRIBUTE_READ_ONLY, _ATTRIBUTES_HARMLESS = 1, 2 | 4 | 8
#: AT_EMPTY_PATH, AT_RECURSIVE; OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC; MOVE_MOUNT_F_EMPTY_PATH.
_EMPTY, _RECURSIVE, _CLONE, _CLOEXEC, _FROM_EMPTY = 0x1000, 0x8000, 1, 0o2000000, 4
_HERE, _DETACH = -100, 2
#: Of each, the number on x86_64 and elsewhere.
_PIVOT_ROOT = (155, 41)
_OPEN_TREE, _MOVE_MOUNT, _SETATTR = 428, 429, 442  # the same everywhere
#: Any directory that every machine has: the new root is mounted over it until it is the root.
_PLACE = "/proc"
#: Below the new root: the file system in memory, and the directories by their numbers.
MEMORY = "/memory"
#: Inodes of the file system in memory: each takes the kernel a kilobyte that no quota counts.
_INODES = 4096


class _Attributes(ctypes.Structure):
    """mount_attr."""

    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("user", ctypes.c_uint64),
    )


def own_user(user: int, group: int) -> None:
    """Give this process's user and group a meaning in the user namespace that it has made.

    Raises:
        OSError: the kernel refuses it.
    """
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


def enter(libc: ctypes.CDLL, grant: Grant) -> None:
    """Leave the machine's files for those of the grant.

    Args:
        libc: the C library, with errno. The process has a mount namespace of its own, and may mount there.
        grant: not an empty one.

    Raises:
        OSError: the kernel refuses it, or a directory is missing.
    """
    _mount(libc, None, "/", None, _PRIVATE)
    trees = [_tree(libc, path, writable=writable) for path, writable in grant.directories]
    _mount(libc, "tmpfs", _PLACE, "tmpfs", _HARMLESS, "size=64k,nr_inodes=64,mode=0755")
    for number, tree in enumerate(trees):
        os.mkdir(f"{_PLACE}/{number}")
        _call(libc, _MOVE_MOUNT, tree, b"", _HERE, f"{_PLACE}/{number}".encode(), _FROM_EMPTY)
        os.close(tree)
    if grant.memory_bytes:
        os.mkdir(_PLACE + MEMORY)
        # The user that the worker becomes is not known yet, and no other user is here.
        size = f"size={grant.memory_bytes},nr_inodes={_INODES},mode=0777"
        _mount(libc, "tmpfs", _PLACE + MEMORY, "tmpfs", _HARMLESS, size)
        for name in ("input", "output", "tmp"):
            os.mkdir(f"{_PLACE}{MEMORY}/{name}")
            os.chmod(f"{_PLACE}{MEMORY}/{name}", 0o777)  # noqa: S103
    _mount(libc, None, _PLACE, None, _READ_ONLY_AGAIN | _HARMLESS)
    os.chdir(_PLACE)
    _call(libc, _PIVOT_ROOT[os.uname().machine != "x86_64"], b".", b".")
    if libc.umount2(b".", _DETACH) != 0:
        raise _error("the old root")
    os.chdir("/")


def _tree(libc: ctypes.CDLL, path: str, *, writable: bool) -> int:
    """A copy of the mounts at a path, with fewer rights; a descriptor."""
    flags = _CLONE | _CLOEXEC | _RECURSIVE
    tree = _call(libc, _OPEN_TREE, _HERE, os.fsencode(path), flags)
    wanted = _ATTRIBUTES_HARMLESS | (0 if writable else _ATTRIBUTE_READ_ONLY)
    attributes = _Attributes(wanted, 0, 0, 0)
    size = ctypes.sizeof(attributes)
    _call(libc, _SETATTR, tree, b"", _EMPTY | _RECURSIVE, ctypes.byref(attributes), ctypes.c_size_t(size))
    return tree


def _mount(
    libc: ctypes.CDLL, source: str | None, target: str, kind: str | None, flags: int, data: str = ""
) -> None:
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind)]
    if libc.mount(*words, ctypes.c_ulong(flags), data.encode()) != 0:
        raise _error(target)


def _call(libc: ctypes.CDLL, number: int, *arguments: object) -> int:
    found: int = libc.syscall(number, *arguments)
    if found < 0:
        raise _error(f"system call {number}")
    return found


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{os.strerror(number)} ({what})")
