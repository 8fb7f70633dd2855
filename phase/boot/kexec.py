"""Handing the machine to another kernel, by the kernel's own system calls.

Not by the `kexec` tool: that reads everything into its heap first, which is the difference between
a machine of 256 MiB and one of 320, and checks every byte again in a way that takes 14 s on arm64.
Here the bytes go once, from the file they were verified in to where the kernel keeps them.

A kernel that is locked down, as under Secure Boot, refuses that. It takes whole files instead, and checks
the next kernel's signature against the keys that it and the firmware know. It keeps the initrd twice then.

Sources: kexec_load(2), kexec_file_load(2), reboot(2), kernel_lockdown(7), Linux kernel/kexec.c and
kernel/kexec_file.c.
"""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import socket
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

from phase.boot.errors import HandoffError, LockedDownError
from phase.boot.ram import align

_KEXEC_LOAD = {"x86_64": 246, "aarch64": 104}
_KEXEC_FILE_LOAD = {"x86_64": 320, "aarch64": 294}
_MAGIC, _MAGIC2, _COMMAND = 0xFEE1DEAD, 0x28121969, 0x45584543
_REBOOT = {"x86_64": 169, "aarch64": 142}
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
#: Seconds after which `boot/files/network` has seen that a card is down; it then asks for a lease anew.
NOTICED_SECONDS = 5.0
_REFUSES = "the kernel refuses to load another"
_WHY = {
    errno.EPERM: "not allowed: kernel.kexec_load_disabled, lockdown, or not root",
    errno.ENOSYS: "this kernel was built without kexec",
    errno.ENOMEM: "not enough memory",
    errno.EADDRNOTAVAIL: "a part would lie outside memory, or over another",
    errno.EBUSY: "another kernel is being loaded",
}
_WHY_FILES = {
    errno.EPERM: "not allowed: kernel.kexec_load_disabled, or not root",
    errno.ENOMEM: "not enough memory",
    errno.ENOEXEC: "the next kernel is in no format that it knows",
}
_SIGN_IT = (
    "Sign it with the key whose certificate is in the firmware's db "
    "(`python3 -m boot system --sign-key`), and publish that."
)
_SWITCH_OFF = "Such a kernel starts no other under Secure Boot: switch that off on this machine."
#: The same where another attempt with the same release changes nothing.
#: Of signatures: Linux kernel/kexec_file.c, `kimage_validate_signature`.
_WHY_LOCKED = {
    errno.ENOSYS: "Secure Boot or kernel.kexec_load_disabled; it was built without kexec_file_load",
    errno.ENODATA: "Secure Boot is on, and the release's kernel is not signed",
    errno.ENOKEY: "Secure Boot is on, and the release's kernel is signed by no key that this machine trusts",
    errno.EKEYREJECTED: "Secure Boot is on, and the release's kernel was changed after it was signed",
    errno.ELIBBAD: "Secure Boot is on, and the release's kernel has not exactly one signature",
}


class Segment(NamedTuple):
    """A part of the next kernel's memory.

    Attributes:
        address: physical, a multiple of the page size.
        size: bytes of memory it fills; what the content leaves is zero.
        content: bytes, or (offset, length) in the file they were verified in.
    """

    address: int
    size: int
    content: bytes | tuple[int, int]


class Image(NamedTuple):
    """Everything the next kernel starts from, and the address it starts at."""

    entry: int
    segments: tuple[Segment, ...]


class Files(NamedTuple):
    """The same for a kernel that is locked down: it lays out memory by itself.

    Attributes:
        kernel: (offset, length) of the next kernel in the file, which is the initrd.
        line: its command line.
    """

    kernel: tuple[int, int]
    line: str


class _Segment(ctypes.Structure):
    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("bufsz", ctypes.c_size_t),
        ("mem", ctypes.c_void_p),
        ("memsz", ctypes.c_size_t),
    )


def load(image: Image, file: int, files: Files | None = None) -> None:
    """Give an image to the running kernel, ready to start.

    Args:
        image: where everything goes.
        file: open for reading and writing; holds what the segments refer to.
        files: for a kernel that allows no image; without it, its refusal is the end.

    Raises:
        HandoffError: the running kernel refused.
        LockedDownError: and no other attempt helps with this release.
    """
    try:
        _load_image(image, file)
    except OSError as error:
        # Debian's kernel, locked down by Secure Boot, says EACCES: IMA is asked first.
        if error.errno not in (errno.EPERM, errno.EACCES) or files is None:
            why = _WHY.get(error.errno or 0, error.strerror)
            raise HandoffError(f"{_REFUSES}: {why}") from error
        _load_files(file, files)


def _load_image(image: Image, file: int) -> None:
    size = os.fstat(file).st_size
    with mmap.mmap(file, size) as whole:
        first = ctypes.c_char.from_buffer(whole)
        try:
            _load(image, ctypes.addressof(first), size)
        finally:
            # The mapping cannot be closed while something points into it.
            del first


def _load(image: Image, base: int, size: int) -> None:
    entries = (_Segment * len(image.segments))()
    kept = []
    for entry, segment in zip(entries, image.segments, strict=True):
        if isinstance(segment.content, bytes):
            kept.append(ctypes.create_string_buffer(segment.content, len(segment.content)))
            entry.buf, entry.bufsz = ctypes.addressof(kept[-1]), len(segment.content)
        else:
            offset, length = segment.content
            if offset < 0 or length < 0 or offset + length > size:
                raise HandoffError(f"bytes {offset}+{length} are not in a file of {size}")
            entry.buf, entry.bufsz = base + offset, length
        entry.mem, entry.memsz = segment.address, align(segment.size)
    _syscall(_KEXEC_LOAD, image.entry, len(entries), entries, 0)


def _load_files(file: int, files: Files) -> None:
    line = files.line.encode("ascii", "strict") + b"\0"
    try:
        with _kernel(file, files.kernel) as kernel, _read_only(file):
            _syscall(_KEXEC_FILE_LOAD, kernel, file, len(line), ctypes.c_char_p(line), 0)
    except OSError as error:
        number = error.errno or 0
        if why := _WHY_LOCKED.get(number):
            hint = _SWITCH_OFF if number == errno.ENOSYS else _SIGN_IT
            raise LockedDownError(f"{_REFUSES}: {why}", hint=hint) from error
        why = _WHY_FILES.get(number, error.strerror)
        raise HandoffError(f"{_REFUSES}: {why}") from error


@contextlib.contextmanager
def _kernel(file: int, place: tuple[int, int]) -> Iterator[int]:
    """The next kernel as a file without a name, that nobody can write to."""
    kernel = os.open(
        os.path.dirname(os.readlink(_link(file))), os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600
    )
    try:
        offset, left = place
        while left:
            sent = os.sendfile(kernel, file, offset, left)
            if not sent:
                raise HandoffError("the next kernel ends before its length")
            offset, left = offset + sent, left - sent
        _reopen(kernel, os.O_RDONLY)
        yield kernel
    finally:
        os.close(kernel)


@contextlib.contextmanager
def _read_only(file: int) -> Iterator[None]:
    """The running kernel reads no file that somebody may write to meanwhile (ETXTBSY)."""
    _reopen(file, os.O_RDONLY)
    try:
        yield
    finally:
        _reopen(file, os.O_RDWR)


def _reopen(file: int, flags: int) -> None:
    """Open what is open once more, under the same number."""
    again = os.open(_link(file), flags | os.O_CLOEXEC)
    try:
        os.dup2(again, file, inheritable=False)
    finally:
        os.close(again)


def _link(file: int) -> str:
    return f"/proc/self/fd/{file}"


def start() -> None:
    """Start the loaded kernel; comes back only by raising."""
    # A card that is down no longer writes to memory, which belongs to the next kernel then.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        down = [name for _, name in socket.if_nameindex() if _turn(control, name, up=False)]
        try:
            _syscall(_REBOOT, _MAGIC, _MAGIC2, _COMMAND, None)
            why = "kexec came back"
        except OSError as error:
            why = f"kexec: {error.strerror}"
        # This system runs on, and be reached: what keeps its cards connected has to see them down first.
        time.sleep(NOTICED_SECONDS)
        for name in down:
            _turn(control, name, up=True)
    raise HandoffError(why, hint="The running kernel's log says why.")


def _turn(control: socket.socket, name: str, *, up: bool) -> bool:
    """Have a card up or down; whether it was otherwise."""
    request = struct.pack("16sh14x", name.encode(), 0)
    try:
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, _SIOCGIFFLAGS, request))[1]
        wanted = flags | _IFF_UP if up else flags & ~_IFF_UP
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", name.encode(), wanted))
    except OSError:
        # It has just gone, or has no such flags: then it does not write either.
        return False
    return bool(flags & _IFF_UP) is not up


def _syscall(numbers: dict[str, int], *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    words = [ctypes.c_ulong(value) if isinstance(value, int) else value for value in arguments]
    if libc.syscall(ctypes.c_long(numbers[os.uname().machine]), *words) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
