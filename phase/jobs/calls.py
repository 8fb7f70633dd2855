"""The kernel's filter (seccomp) for the system calls that a worker may make once its engine is loaded.

A call that is not listed ends the process with SIGSYS, and the job with it: sockets, programs, other
processes, keys, mounts, tracing. The list has the calls that the modules of the tests make. Some calls are
refused without ending the process: C libraries try them, and do without. The filter is written here and not
by libseccomp, which is not on every machine and whose bindings would take a worker longer than the whole
cage.

The numbers are the kernel's, for x86_64 and for every later architecture (asm-generic; here that is arm64).
"""

import ctypes
import errno
import os

#: SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS (linux/seccomp.h).
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
#: BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_ALU|AND|K, BPF_RET|K (linux/bpf_common.h).
_LOAD, _EQUAL, _AND, _RETURN = 0x20, 0x15, 0x54, 0x06
#: Places in seccomp_data: the call's number, its architecture; arguments have 8 bytes each, the low 4 first.
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_FILTER, _ALL_THREADS = 1, 1

#: Number on x86_64, and elsewhere; None if the architecture does not have the call.
_Numbers = tuple[int | None, int | None]
_ALLOWED: dict[str, _Numbers] = {
    # The pipes to the parent, and the engine's loop.
    "read": (0, 63),
    "readv": (19, 65),
    "write": (1, 64),
    "writev": (20, 66),
    "pread64": (17, 67),
    "close": (3, 57),
    "lseek": (8, 62),
    "fstat": (5, 80),
    "poll": (7, None),
    "ppoll": (271, 73),
    "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21),
    "epoll_wait": (232, None),
    "epoll_pwait": (281, 22),
    "eventfd2": (290, 19),
    # Its own memory.
    "munmap": (11, 215),
    "mremap": (25, 216),
    "mprotect": (10, 226),
    "madvise": (28, 233),
    "brk": (12, 214),
    "membarrier": (324, 283),
    # Its own threads and signals.
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "exit": (60, 93),
    "exit_group": (231, 94),
    # Time, randomness, and its own ids.
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "getrandom": (318, 278),
    "getrusage": (98, 165),
    "sysinfo": (99, 179),
    "getpid": (39, 172),
    "getppid": (110, 173),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
}
#: Calls that C libraries and interpreters make to write an error message, or to run faster.
_REFUSED: dict[str, _Numbers] = {
    "open": (2, None),
    "openat": (257, 56),
    "stat": (4, None),
    "lstat": (6, None),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "getcwd": (79, 17),
    "uname": (63, 160),
    "ioctl": (16, 29),
    "prctl": (157, 167),
    "set_mempolicy": (238, 237),
    "sched_setaffinity": (203, 122),
}
#: The newer way to start a thread hides its flags from a filter; the C library takes the older one then.
_UNKNOWN: dict[str, _Numbers] = {"clone3": (435, 435)}
#: What a job makes of files, if it is granted some. Which files, the mount namespace and Landlock decide.
_FILES: dict[str, _Numbers] = {
    "openat": (257, 56),
    "openat2": (437, 437),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "fstatfs": (138, 44),
    "readlinkat": (267, 78),
    "getdents64": (217, 61),
    "mkdirat": (258, 34),
    "unlinkat": (263, 35),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "linkat": (265, 37),
    "symlinkat": (266, 36),
    "utimensat": (280, 88),
    "ftruncate": (77, 46),
    "fallocate": (285, 47),
    "fadvise64": (221, 223),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "pwrite64": (18, 68),
    "preadv": (295, 69),
    "pwritev": (296, 70),
    "preadv2": (327, 286),
    "pwritev2": (328, 287),
    "dup": (32, 23),
}
#: F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL, F_SETFL: no owner of a descriptor, no size of a pipe.
_FCNTL = (1030, 1, 2, 3, 4)
#: RLIMIT_DATA does not count shared memory; locked and huge pages take more than they seem to. What is left
#: is MAP_ANONYMOUS.
_MAP_MASK, _MAP_PRIVATE = 0x01 | 0x2000 | 0x40000 | 0x20, 0x20
#: The flags of a thread: it shares memory, files and signals with its process. CLONE_DETACHED has no effect.
_THREAD_MASK, _THREAD = 0xFFBFFFFF, 0x003D0F00


#: Code; how many instructions to skip if a comparison holds, and if not; value.
_Instruction = tuple[int, int, int, int]


#: Filters without and with files, for a process whose number is not known yet: in its place is a number
#: that no process and nothing else in a filter has.
_prepared: dict[bool, bytes] = {}
_ANY_PROCESS = 0x7EADBEEF


class _Program(ctypes.Structure):
    """sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def close(libc: ctypes.CDLL, *, files: bool = False) -> None:
    """Forbid this process all other calls than those listed, from now on.

    Args:
        libc: the C library, with errno. The process has given up the right to gain privileges.
        files: whether it may use files.

    Raises:
        OSError: the kernel has no filters, or refuses this one.
    """
    prepare(files)
    own = os.getpid().to_bytes(4, "little")
    code = _prepared[files].replace(_ANY_PROCESS.to_bytes(4, "little"), own)
    seccomp = 317 if os.uname().machine == "x86_64" else 277
    given = _Program(len(code) // 8, code)
    if libc.syscall(seccomp, _FILTER, _ALL_THREADS, ctypes.byref(given)) != 0:
        number = ctypes.get_errno() or errno.EBUSY  # otherwise it has returned the id of a thread
        raise OSError(number, os.strerror(number))


def prepare(files: bool) -> None:
    """Write a filter, once for all processes that this one forks: that takes longer than to set it.

    Raises:
        OSError: this architecture's calls are not known.
    """
    if files not in _prepared:
        _prepared[files] = program(os.uname().machine, _ANY_PROCESS, files=files)


def program(machine: str, process: int, *, files: bool = False) -> bytes:
    """The filter in the kernel's format.

    Args:
        machine: the kernel's name of the architecture: `x86_64` or `aarch64`.
        process: the process that may signal its own threads.
        files: whether it may use files.

    Raises:
        OSError: it is another architecture.
    """
    if machine not in ("x86_64", "aarch64"):
        raise OSError(errno.ENOSYS, f"its calls are not known on {machine}")
    # AUDIT_ARCH_X86_64, AUDIT_ARCH_AARCH64: the same number is another call on another architecture.
    place, own = (0, 0xC000003E) if machine == "x86_64" else (1, 0xC00000B7)
    code = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, own), (_RETURN, 0, 0, _KILL)]
    # Numbers of x32, the second set of x86_64, are not listed: they have one more bit.
    code.append((_LOAD, 0, 0, _NUMBER))
    for answer, calls in (
        (_ALLOW, _ALLOWED),
        (_ALLOW, _FILES if files else {}),
        (_ERRNO | errno.EACCES, _REFUSED),
        (_ERRNO | errno.ENOSYS, _UNKNOWN),
    ):
        for numbers in calls.values():
            if (number := numbers[place]) is not None:
                code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, answer)]
    for numbers, argument, mask, values in (
        ((9, 222), 3, _MAP_MASK, (_MAP_PRIVATE,)),  # mmap
        ((56, 220), 0, _THREAD_MASK, (_THREAD,)),  # clone
        ((72, 25), 1, 0xFFFFFFFF, _FCNTL),
        ((302, 261), 0, 0xFFFFFFFF, (0,)),  # prlimit64: its own limits, whose hard ones only fall
        ((234, 131), 0, 0xFFFFFFFF, (process,)),  # tgkill, with which a C library aborts
    ):
        code += _checked(numbers[place], argument, mask, values)
    code.append((_RETURN, 0, 0, _KILL))
    return b"".join(_packed(*each) for each in code)


def _checked(number: int, argument: int, mask: int, values: tuple[int, ...]) -> list[_Instruction]:
    """Allow a call if one of its arguments, after the mask, has one of these values."""
    rule = [(_LOAD, 0, 0, _ARGUMENTS + 8 * argument), (_AND, 0, 0, mask)]
    for value in values:
        rule += [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
    rule.append((_RETURN, 0, 0, _KILL))
    return [(_EQUAL, 0, len(rule), number), *rule]


def _packed(code: int, true: int, false: int, value: int) -> bytes:
    return code.to_bytes(2, "little") + bytes((true, false)) + value.to_bytes(4, "little")
