"""Floors in variables of the machine's own firmware, for machines that have no disk to keep them on.

Each publisher has a variable of its own, `PhaseFloor` and the name of its memory (`phase.trust.floor`): none
can fill another's, and a damaged one stops the seeds of its own publisher alone. There are so many, no more.

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
from phase.trust.floor import Kept

DIRECTORY = "/sys/firmware/efi/efivars"
_PREFIX, _SUFFIX = "PhaseFloor", "-8b2ec5a4-93f5-4d34-9a5e-2d2f6c3f7a10"
#: From before publishers had one each.
BEFORE = f"{_PREFIX}{_SUFFIX}"
_MODULES = "/etc/modules-efi"
#: Kept without power, readable before and after the firmware hands over.
_ATTRIBUTES = struct.pack("<I", 1 | 2 | 4)
#: Bytes of a variable; firmware has little room, and some of it breaks when that is full.
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


def name_of(publisher: str) -> str:
    """The variable of a publisher, as a file."""
    return f"{_PREFIX}{publisher}{_SUFFIX}"


def load(publisher: str, directory: str = DIRECTORY) -> Kept:
    """What the firmware remembers.

    Args:
        publisher: as `phase.trust.floor.publisher` returns it.
        directory: where the variables are.

    Raises:
        TrustError: what it keeps of this publisher, or kept before publishers had one each, is damaged or
            cannot be read: a person has to decide.
    """
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        raise _unreadable(directory, error) from error
    mine = {name_of(publisher), BEFORE}
    there = [name for name in names if name.startswith(_PREFIX) and name.endswith(_SUFFIX)]
    return floors.kept(
        _load(f"{directory}/{name_of(publisher)}"),
        _load(f"{directory}/{BEFORE}"),
        [name for name in there if name not in mine],
        lambda name: _load(f"{directory}/{name}"),
    )


def _load(path: str) -> Floor:
    try:
        with open(path, "rb") as handle:
            data = handle.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return Floor()
    except OSError as error:
        raise _unreadable(path, error) from error
    if not data:
        return Floor()  # no variable is empty: one that the firmware did not take leaves such a file
    if len(data) > MAX_BYTES:
        raise FormatError(f"trust state {path} is damaged: more than {MAX_BYTES} bytes", hint=_hint(path))
    return floors.parse(data[len(_ATTRIBUTES) :], path, hint=_hint(path))


def save(publisher: str, floor: Floor, had: Kept, directory: str = DIRECTORY) -> tuple[str, ...]:
    """Keep a publisher's floor, if it says more than what is kept.

    Args:
        publisher: whose.
        floor: the new one.
        had: what `load` returned.
        directory: where the variables are.

    Returns:
        Names of what other publishers had there and was removed, since there were too many.

    Raises:
        CacheError: the firmware does not take it; what was there stays.
    """
    if floor._replace(time=0) == had.own._replace(time=0) and floor.time - had.own.time < _DAY:
        return ()
    data = _ATTRIBUTES + floors.encode(floor)
    if len(data) > MAX_BYTES:
        raise CacheError(f"the floor has {len(data)} bytes, too many for the firmware")
    superfluous = tuple(floors.superfluous(had))
    try:
        for name in superfluous:
            _unlock(f"{directory}/{name}")
            os.unlink(f"{directory}/{name}")
        _write(f"{directory}/{name_of(publisher)}", data)
    except OSError as error:
        raise CacheError(
            f"the firmware does not keep the floor: {error.strerror}",
            hint="An older release is refused on this machine only as far as it is remembered elsewhere.",
        ) from error
    return superfluous


def _write(path: str, data: bytes) -> None:
    _unlock(path)
    # In one write: the firmware replaces the whole variable, or keeps the old one.
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        if os.write(file, data) != len(data):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
    finally:
        os.close(file)


def _hint(path: str) -> str:
    return (
        "It keeps old releases out; phase.mode=private boots without it, through Tor. To start anew, if you "
        "know that no older release can be offered here: mount efivarfs, then "
        f"`chattr -i {path}` and `rm {path}`."
    )


def _unreadable(path: str, error: OSError) -> FormatError:
    return FormatError(f"trust state {path} cannot be read: {error.strerror}", hint=_hint(path))


def _unlock(path: str) -> None:
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        # A number of four bytes, although the request's name has the size of a `long`.
        (flags,) = struct.unpack_from("<I", fcntl.ioctl(file, _FS_IOC_GETFLAGS, bytes(8)))
        if flags & _IMMUTABLE:
            fcntl.ioctl(file, _FS_IOC_SETFLAGS, struct.pack("<I4x", flags & ~_IMMUTABLE))
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP):  # files without flags can be written to
            raise
    finally:
        os.close(file)
