"""The machine's TPM 2.0, into which is measured what starts next.

One command is all that it takes, so there is no library: those that exist are larger than the seed.
By that command, the TPM hashes an event itself, for each of its banks: none is left for others to fill.

Sources: Trusted Computing Group, TPM 2.0 Library, part 3, "TPM2_PCR_Event", and part 2 for the constants;
Linux drivers/char/tpm/tpm-dev-common.c.
"""

import os
import struct
from collections.abc import Iterable

from phase.boot import mounts
from phase.boot.errors import HandoffError

_DEVICE = "/dev/tpm0"
_VERSION = "/sys/class/tpm/tpm0/tpm_version_major"
_MODULES = "/etc/modules-tpm"
#: The tag of a command with an authorization, the command, and an authorization by an empty password.
_TAG, _PCR_EVENT = 0x8002, 0x13C
_PASSWORD = struct.pack(">IIHBH", 9, 0x4000_0009, 0, 0, 0)
_HEADER = struct.Struct(">HII")
#: Bytes of an event, and of an answer.
MAX_EVENT, _MAX_ANSWER = 1024, 4096


def measure(pcr: int, events: Iterable[bytes], *, device: str = _DEVICE, version: str = _VERSION) -> bool:
    """Have this machine's TPM add events to a PCR; whether there is a TPM 2.0.

    Args:
        pcr: number of the register.
        events: in order, each of at most 1024 bytes.
        device: the TPM's.
        version: where the kernel says of which version it is.

    Raises:
        HandoffError: there is one, and it does not: what comes next could claim to be anything.
    """
    if not os.path.exists(device) and os.path.exists(_MODULES):
        mounts.load_modules(_MODULES)
    try:
        if not os.path.exists(device) or _read(version) != b"2":
            return False
        file = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise _refused(pcr, error.strerror) from error
    try:
        for event in events:
            add(file, pcr, event)
    finally:
        os.close(file)
    return True


def add(file: int, pcr: int, event: bytes) -> None:
    """Add one event to a PCR.

    Args:
        file: open to a TPM; takes a command in one write, gives its answer in one read.
        pcr: number of the register.
        event: at most 1024 bytes.

    Raises:
        HandoffError: the TPM refuses, or does not answer as one does.
    """
    words = struct.pack(">I", pcr) + _PASSWORD + struct.pack(">H", len(event)) + event
    try:
        os.write(file, _HEADER.pack(_TAG, _HEADER.size + len(words), _PCR_EVENT) + words)
        answer = os.read(file, _MAX_ANSWER)
    except OSError as error:
        raise _refused(pcr, error.strerror) from error
    if len(answer) < _HEADER.size:
        raise _refused(pcr, f"an answer of {len(answer)} bytes")
    _, length, code = _HEADER.unpack_from(answer)
    if code or length != len(answer):
        raise _refused(pcr, f"it answers with code {code:#x}")


def _read(path: str) -> bytes:
    with open(path, "rb") as handle:
        return handle.read(16).strip()


def _refused(pcr: int, why: str | None) -> HandoffError:
    return HandoffError(
        f"this machine's TPM does not take what is measured into PCR {pcr}: {why}",
        hint="Clear it, or switch it off, in the firmware's menu: without one, nothing is measured.",
    )
