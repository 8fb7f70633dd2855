"""The floor in a variable of the machine's own firmware, for machines that have no disk to keep it on.

Sources: UEFI specification 2.10, section 8.2; Linux Documentation/filesystems/efivarfs.rst. A file there is
the variable: four bytes of attributes, then its content. It is immutable until its flag is cleared, so
that a careless `rm` does not break the machine.
"""

import errno
import fcntl
import os
import struct

from phase.boot import mounts
from phase.boot.errors import CacheError
from phase.trust import Floor, FormatError
from phase.trust import floor as floors

DIRECTORY = "/sys/firmware/efi/efivars"
NAME = "PhaseFloor-8b2ec5a4-93f5-4d34-9a5e-2d2f6c3f7a10"
_MODULES = "/etc/modules-efi"
#: Kept without power, readable before and after the firmware hands over.
_ATTRIBUTES = struct.pack("<I", 1 | 2 | 4)
#: Bytes; firmware has little room, and some of it breaks when that is full.
MAX_BYTES = 4096
#: Seconds the clock must have gone on before it alone is worth a write: flash wears.
_DAY = 86_400
_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS, _IMMUTABLE = 0x80086601, 0x40086602, 0x10


def available(directory: str = DIRECTORY) -> bool:
    """Whether this machine's firmware keeps variables, and lets us at them.

    Raises:
        TrustError: it does, and they cannot be reached: what they remember must not be passed over.
    """
    if not os.path.isdir(directory):  # the kernel makes it where there is UEFI
        return False
    try:
        mounts.load_modules(_MODULES)
        mounts.mount("efivarfs", directory, "efivarfs")
    except OSError as error:
        # No such file system in this kernel, or no services of the firmware at run time.
        if error.errno in (errno.ENODEV, errno.EOPNOTSUPP):
            return False
        if error.errno != errno.EBUSY:  # it is mounted
            raise _unreadable(directory, error) from error
    return True


def load(directory: str = DIRECTORY) -> Floor:
    """The floor the firmware keeps; an empty one where it keeps none.

    Raises:
        TrustError: there is one, and it is damaged or cannot be read: a person has to decide.
    """
    path = f"{directory}/{NAME}"
    try:
        with open(path, "rb") as handle:
            data = handle.read(MAX_BYTES)
    except FileNotFoundError:
        return Floor()
    except OSError as error:
        raise _unreadable(path, error) from error
    return floors.parse(data[len(_ATTRIBUTES) :], path)


def save(floor: Floor, had: Floor, directory: str = DIRECTORY) -> None:
    """Keep a floor, if it says more than what is kept.

    Args:
        floor: the new one.
        had: what `load` returned.
        directory: where the variables are.

    Raises:
        CacheError: the firmware does not take it.
    """
    floor = floors.replacing(floor, had)
    if floor._replace(time=0) == had._replace(time=0) and floor.time - had.time < _DAY:
        return
    data = _ATTRIBUTES + floors.encode(floor)
    if len(data) > MAX_BYTES:
        raise CacheError(f"the floor has {len(data)} bytes, too many for the firmware")
    path = f"{directory}/{NAME}"
    try:
        _unlock(path)
        # In one write: the firmware replaces the whole variable, or keeps the old one.
        file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.write(file, data)
        finally:
            os.close(file)
    except OSError as error:
        raise CacheError(f"the firmware does not keep the floor: {error.strerror}") from error


def _unreadable(path: str, error: OSError) -> FormatError:
    return FormatError(
        f"trust state {path} cannot be read: {error.strerror}",
        hint="It keeps old releases out; phase.mode=private boots without it.",
    )


def _unlock(path: str) -> None:
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        (flags,) = struct.unpack("<l", fcntl.ioctl(file, _FS_IOC_GETFLAGS, bytes(8)))
        fcntl.ioctl(file, _FS_IOC_SETFLAGS, struct.pack("<l", flags & ~_IMMUTABLE))
    finally:
        os.close(file)
