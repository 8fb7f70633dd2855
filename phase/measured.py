"""What a handoff leaves in a machine's TPM, and what that comes to: measured boot.

Before a seed starts the next kernel, it has the TPM put two events into one register, a PCR: which manifest
it has verified, and which command line it hands over. A PCR only ever becomes the hash of its value and of
what is added, so that who knows the release and the seed's command line knows what it has to be.

Source: Trusted Computing Group, TPM 2.0 Library, part 1, "Extend of a PCR", and part 3, "TPM2_PCR_Event".
"""

from collections.abc import Iterable
from hashlib import sha256

#: Firmware uses 0 to 7, GRUB and Linux 8 and 9, IMA 10, systemd's stub 11 to 13, shim this one: a seed is
#: started without shim. (UAPI group, "Linux TPM PCR Registry")
PCR = 14


def events(manifest: bytes, line: str) -> tuple[bytes, bytes]:
    """The events of one handoff, in order.

    Args:
        manifest: the whole file of the verified metadata.
        line: the second kernel's command line.
    """
    named = (("manifest", manifest), ("cmdline", line.encode()))
    first, second = (f"phase {name} sha256:{sha256(data).hexdigest()}".encode() for name, data in named)
    return first, second


def extended(those: Iterable[bytes], start: bytes = bytes(32)) -> bytes:
    """The value of a PCR in the TPM's bank of SHA-256 after events, 32 bytes.

    Args:
        those: the events, in order.
        start: its value before; zero since the machine was switched on.
    """
    value = start
    for event in those:
        value = sha256(value + sha256(event).digest()).digest()
    return value
