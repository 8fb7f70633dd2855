"""How much memory a release needs from its way into the next kernel until its system runs.

Three moments need the most, and each decides for some machine:

- The handoff. Here the initrd exists twice, in the file it was verified in and where the running kernel
  keeps it for the next one, beside that kernel itself. And the kernel refuses to keep more than half of its
  memory (Linux kernel/kexec_core.c, `sanity_check_segment_list`).
- The start of the next kernel, which unpacks its initrd while that is still there.
- The system at work: what was unpacked stays, because this machine serves it.
"""

from typing import NamedTuple

from phase.boot.errors import BootError

MIB = 1 << 20
#: What this program still takes between the check and the handoff: connections, chunks on their way, the
#: tables of the kernel. Measured with releases of 40 to 200 MB.
_WORK = 12 * MIB
#: What the next kernel and its first process hold beside the kernel while the initrd is unpacked.
_UNPACK = 16 * MIB
#: What a node and a provider need to run a job and to serve, beside the kernel.
_SYSTEM = 100 * MIB
#: Of each further byte, what the kernel can give to others: it describes every page in 64 bytes, and keeps
#: more of a larger machine free. Measured: 62 of 64 MB; a little less, so that what is named is enough.
_GIVEN = 15 / 16


class Memory(NamedTuple):
    """What a machine has, all in bytes.

    Attributes:
        installed: memory that the firmware gave to the kernel.
        total: what the kernel can give to others: without itself (`MemTotal`).
        available: what could be used now without swapping (`MemAvailable`).
        movable: the part of it that takes files only, and nothing that the kernel keeps (`CmaFree`).
    """

    installed: int
    total: int
    available: int
    movable: int = 0


class Load(NamedTuple):
    """What a release puts into memory, all in bytes.

    Attributes:
        initrd: the second kernel's initrd.
        kernel: what the second kernel takes beyond its initrd, where it is started.
        missing: of the initrd, what does not yet stand in memory.
    """

    initrd: int
    kernel: int
    missing: int


class TooLittleMemoryError(BootError):
    """This machine has too little memory for the release; trying again changes nothing."""


def needed(load: Load, memory: Memory) -> int:
    """The installed memory that a machine of this kind needs, bytes.

    Args:
        load: of the release.
        memory: of this machine, before the release is fetched.
    """
    # Of a machine with so much more or less, the kernel takes its part.
    low, high = -memory.available, 64 * (load.initrd + load.kernel) + (1 << 30)
    while high - low > MIB // 16:
        more = (low + high) // 2
        if _fits(load, memory, more):
            high = more
        else:
            low = more
    return memory.installed + (round(high / _GIVEN) if high > 0 else high)


def _fits(load: Load, memory: Memory, more: int) -> bool:
    """Whether a machine that can give so much more to others (bytes) can start a release."""
    total = memory.total + more
    kept = load.initrd + load.kernel
    file, available = load.missing, memory.available + more
    # A file takes its pages from the larger part, and once they are equal from both; what the kernel keeps
    # takes them from one. Linux mm/page_alloc.c, `__rmqueue`.
    anything = available - memory.movable
    apart = anything - memory.movable
    if apart >= 0:
        anything -= min(file, apart)
        file = max(file - apart, 0)
    else:
        file = max(file + apart, 0)
    anything -= file // 2 if memory.movable else file
    return (
        2 * kept <= total
        and load.missing + kept + _WORK <= available
        and kept + _WORK <= anything
        and 2 * load.initrd + _UNPACK <= total
        and load.initrd + _SYSTEM <= total
    )


def check(load: Load, memory: Memory, what: str) -> None:
    """Refuse a release that this machine cannot start.

    Args:
        load: of the release.
        memory: of this machine.
        what: the release, for the message.

    Raises:
        TooLittleMemoryError: it needs more than there is; how much of each.
    """
    need = needed(load, memory)
    if need > memory.installed:
        raise TooLittleMemoryError(
            f"{what} needs {mib(need)} MB of memory, this machine has {mib(memory.installed)} MB",
            hint="Give it more memory, or publish a smaller release.",
        )


def root_words(initrd: int, memory: Memory) -> tuple[str, ...]:
    """Words for the next kernel's line, so that it can unpack an initrd of this size.

    It unpacks into a tmpfs, which takes half of what is left beside the initrd at most; ramfs has no limit.

    Args:
        initrd: its length, bytes.
        memory: of this machine.
    """
    return ("rootfstype=ramfs",) if initrd > (memory.total - initrd) * 0.45 else ()


def mib(size: int) -> int:
    """Mebibytes, rounded up: what is written on a memory module, or after QEMU's `-m`."""
    return -(-size // MIB)


def parse(meminfo: str, iomem: str) -> Memory:
    """Read what the kernel says of its memory.

    Args:
        meminfo: `/proc/meminfo`.
        iomem: `/proc/iomem`, read as root.
    """
    fields: dict[str, int] = {}
    for line in meminfo.splitlines():
        name, _, value = line.partition(":")
        number = value.split()
        if number and number[0].isdecimal():
            fields[name] = int(number[0]) << 10
    total = fields.get("MemTotal", 0)
    installed = 0
    for line in iomem.splitlines():
        place, _, kind = line.partition(" : ")
        if kind == "System RAM" and not line.startswith(" "):
            first, _, last = place.partition("-")
            installed += int(last, 16) + 1 - int(first, 16)
    # Without root there are no addresses to read; the kernel's own share is then unknown.
    return Memory(max(installed, total), total, fields.get("MemAvailable", total), fields.get("CmaFree", 0))


def x86_kernel(params: bytes, length: int) -> int:
    """What an x86_64 kernel takes where it starts, judged by the one that runs, bytes.

    Args:
        params: the running kernel's boot parameters, 4096 bytes.
        length: of the other kernel's file, bytes.
    """
    running = int.from_bytes(params[0x1F4:0x1F8], "little") * 16
    needs = int.from_bytes(params[0x260:0x264], "little")
    return max(length, needs * length // running) if running else length
