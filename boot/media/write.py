"""Writes a medium to a device, reads it back and compares."""

import contextlib
import errno
import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from boot.errors import BuildError
from boot.media import devices

_BLOCK = 4 << 20
#: The second table of an old medium may be in the last 34 sectors, where no reader must find it again.
_TAIL = 34 * 512
#: BLKFLSBUF of linux/fs.h: forget what is cached of a device, so that it is read again.
_FLUSH = 0x1261
_SIGNATURE = b"EFI PART"
Progress = Callable[[str, int, int], None]


def ask(device: devices.Device, medium: Path) -> bool:
    """Ask a person, who reads what is on the device."""
    print("\n".join(devices.lines(device)))
    print(f"All of it is erased, and {medium} written. Type yes to go on: ", end="", flush=True)
    return sys.stdin.readline().strip() == "yes"


def write(medium: Path, target: Path, *, sure: Callable[[devices.Device, Path], bool] = ask) -> bool:
    """Write a medium to a device, when a person is sure of it.

    Args:
        medium: a file from `python -m boot build usb` or `iso`.
        target: the device.
        sure: called with the device before anything is written.

    Returns:
        Whether it was written; the other case is that the person was not sure.

    Raises:
        BuildError: the device must not be written to, or what was read back is not what was written.
        OSError: something cannot be read or written.
    """
    with medium.open("rb") as source:
        length = _length(source, medium)
        device = devices.look(target)
        if why := devices.refusal(device, length):
            raise BuildError(why)
        if not os.access(target, os.R_OK | os.W_OK):
            raise BuildError(
                f"this account may not write to {target}",
                hint='Run it as root: `sudo -E env PATH="$PATH" python3 -m boot write …`.',
            )
        if not sure(device, medium):
            return False
        with open(_alone(target), "r+b", buffering=0) as handle:
            # While the person read, another stick may have got this name; one of the same size, too.
            if handle.seek(0, os.SEEK_END) != device.size or devices.look(target) != device:
                raise BuildError(f"{target} is another device than it was a moment ago")
            handle.seek(0)
            transfer(source, handle, length, device.size)
    return True


def _alone(target: Path) -> int:
    """Open a device that nothing else uses: the kernel knows what lsblk cannot see, or saw too early."""
    try:
        return os.open(target, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise BuildError(
            f"{target} is in use", hint="It may be mounted in a container, or part of an array."
        ) from error


def transfer(
    source: BinaryIO, target: BinaryIO, length: int, size: int, progress: Progress | None = None
) -> None:
    """Copy, read back and compare.

    Args:
        source: the medium, at its start.
        target: the device, unbuffered.
        length: bytes of the medium.
        size: bytes of the device.
        progress: called with what is done, bytes done, and bytes in all.

    Raises:
        BuildError: what was read back is not what was written.
    """
    progress = progress or Shown()
    for offset, data in _blocks(source, length):
        _write_all(target, data)
        progress("written", offset + len(data), length)
    if size - _TAIL >= length:
        target.seek(size - _TAIL)
        _write_all(target, bytes(_TAIL))
    os.fsync(target.fileno())
    os.posix_fadvise(target.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with contextlib.suppress(OSError):  # not a device
        fcntl.ioctl(target.fileno(), _FLUSH)
    source.seek(0)
    target.seek(0)
    for offset, data in _blocks(source, length):
        if (read := _read_all(target, len(data))) != data:
            first = next((n for n, (a, b) in enumerate(zip(data, read, strict=False)) if a != b), len(read))
            raise BuildError(
                f"byte {offset + first} was read back otherwise than it was written",
                hint="The device is worn out, or not as large as it says. Take another.",
            )
        progress("compared", offset + len(data), length)


def _length(source: BinaryIO, medium: Path) -> int:
    """Bytes of a medium, which a file has to look like."""
    if source.read(1024)[512:520] != _SIGNATURE:
        raise BuildError(
            f"{medium} is not a medium for a device: it has no GUID partition table",
            hint="`python -m boot build usb` makes one; `build iso` does, too.",
        )
    length = source.seek(0, os.SEEK_END)
    source.seek(0)
    return length


def _blocks(source: BinaryIO, length: int) -> Iterator[tuple[int, bytes]]:
    for offset in range(0, length, _BLOCK):
        data = source.read(min(_BLOCK, length - offset))
        if len(data) < min(_BLOCK, length - offset):
            raise BuildError("the medium's file became shorter while it was read")
        yield offset, data


def _write_all(target: BinaryIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[target.write(left) :]


def _read_all(target: BinaryIO, length: int) -> bytes:
    found = bytearray()
    while len(found) < length and (data := target.read(length - len(found))):
        found += data
    return bytes(found)


class Shown:
    """Progress on standard error: a line that changes on a terminal, elsewhere a line every tenth."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._told = ("", -1)

    def __call__(self, what: str, done: int, of: int) -> None:
        """See `Progress`."""
        step = done * (100 if self._terminal else 10) // of
        if (what, step) == self._told:
            return
        self._told = what, step
        line = f"{what}: {done / 1e6:.0f} of {of / 1e6:.0f} MB"
        end = "\n" if done == of or not self._terminal else ""
        print(f"\r{line}" if self._terminal else line, end=end, file=sys.stderr, flush=True)
