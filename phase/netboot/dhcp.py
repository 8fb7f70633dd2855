"""What machines ask before they boot, and what a proxy DHCP server answers. Pure: bytes in, bytes out.

A proxy gives no address and no lease: it adds the name of the boot file to what the network's own DHCP
server says. It answers nobody who does not say that it is firmware which boots from the network.

Source: RFC 951 and 2131 (the message), RFC 2132 and 3396 (options), RFC 4578 (options 93, 94 and 97), the
Preboot Execution Environment specification 2.1 (proxy DHCP), the UEFI specification 2.10, 24.7 (HTTP boot).
"""

import struct
from collections.abc import Mapping
from enum import Enum, IntEnum
from ipaddress import IPv4Address
from typing import NamedTuple

#: The longest message that is read, bytes: what a frame of Ethernet carries.
MAX_MESSAGE = 1472
#: The longest name of a boot file, bytes: an option's length is one byte.
MAX_NAME = 255
_HEAD = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s4s")
_MAGIC = b"\x63\x82\x53\x63"
_REQUEST, _REPLY, _ETHERNET, _MAC_BYTES = 1, 2, 1, 6
#: Some firmware drops a message shorter than BOOTP's (RFC 1542, 2.1).
_SHORTEST = 300
_PAD, _END = 0, 255
_KIND, _SERVER, _VENDOR, _CLASS, _FILE = 53, 54, 43, 60, 67
_USER_CLASS, _ARCHITECTURE, _MACHINE, _IPXE = 77, 93, 97, 175
_MACHINE_BYTES = 17
#: Of option 43: use the boot file of this answer, and look for no boot server (PXE 2.1, table 2-3).
_USE_THIS = b"\x06\x01\x08\xff"


class Kind(IntEnum):
    """What a message is (RFC 2132, 9.6): those that a proxy hears or says."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    ACK = 5


class Way(Enum):
    """How a machine fetches its boot file."""

    PXE = "PXE"
    HTTP = "UEFI HTTP boot"
    IPXE = "iPXE"


class Firmware(NamedTuple):
    """What option 93 says of a machine.

    Attributes:
        arch: Phase's name of the architecture.
        way: what this firmware fetches by.
        bios: whether it starts programs of a BIOS.
    """

    arch: str
    way: Way
    bios: bool = False


_PXE, _HTTP = b"PXEClient", b"HTTPClient"
#: Numbers of option 93, as the Internet Assigned Numbers Authority lists them. 7 is x64 in the list's errata
#: and in all firmware, and 9 in the list's first edition.
FIRMWARE: Mapping[int, Firmware] = {
    0: Firmware("x86_64", Way.PXE, bios=True),
    7: Firmware("x86_64", Way.PXE),
    9: Firmware("x86_64", Way.PXE),
    11: Firmware("arm64", Way.PXE),
    16: Firmware("x86_64", Way.HTTP),
    19: Firmware("arm64", Way.HTTP),
}


class Question(NamedTuple):
    """What a machine asks.

    Attributes:
        kind: DISCOVER or REQUEST.
        firmware: what it is.
        way: how it will fetch: its firmware's, or iPXE's where that runs in its place.
        transaction: names its question; the answer repeats it, as it does `flags`.
        flags: the machine's wishes (RFC 2131, 2).
        mac: its hardware address, 6 bytes.
        address: its own, where it has one.
        machine: option 97, repeated in the answer; empty where it sent none.
    """

    kind: Kind
    firmware: Firmware
    way: Way
    transaction: int
    flags: int
    mac: bytes
    address: IPv4Address
    machine: bytes


def parse(data: bytes) -> Question | None:
    """What a machine asks; None for everything that a proxy does not answer.

    Args:
        data: a datagram from anybody.
    """
    if not _HEAD.size <= len(data) <= MAX_MESSAGE:
        return None
    operation, medium, length, _, transaction, _, flags, own, _, _, relay, mac, _, _, magic = _HEAD.unpack(
        data[: _HEAD.size]
    )
    ours = (operation, medium, length, magic) == (_REQUEST, _ETHERNET, _MAC_BYTES, _MAGIC)
    # What a relay brings is from another segment, and this proxy is for its own.
    if not ours or any(relay):
        return None
    options = _options(data[_HEAD.size :])
    if options is None or options.get(_KIND) not in (b"\x01", b"\x03"):
        return None
    firmware = _firmware(options)
    if firmware is None:
        return None
    ipxe = firmware.way is Way.PXE and (_IPXE in options or b"iPXE" in options.get(_USER_CLASS, b""))
    machine = options.get(_MACHINE, b"")
    return Question(
        Kind(options[_KIND][0]),
        firmware,
        Way.IPXE if ipxe else firmware.way,
        transaction,
        flags,
        mac[:_MAC_BYTES],
        IPv4Address(own),
        machine if len(machine) == _MACHINE_BYTES else b"",
    )


def answer(question: Question, name: str, server: IPv4Address) -> bytes:
    """What the proxy answers: an offer to a DISCOVER, an acknowledgement to a REQUEST.

    Args:
        question: of the machine.
        name: its boot file: a name for TFTP, or a URL; at most `MAX_NAME` bytes.
        server: this machine's address, as the other one reaches it.
    """
    kind = Kind.OFFER if question.kind is Kind.DISCOVER else Kind.ACK
    file = name.encode()
    options = {
        _KIND: bytes((kind,)),
        _SERVER: server.packed,
        _CLASS: _HTTP if question.way is Way.HTTP else _PXE,
        _MACHINE: question.machine,
    }
    if question.way is Way.PXE and question.firmware.bios:
        # UEFI takes an answer without it for a hint to ask at port 4011, which all of its builds can do.
        options[_VENDOR] = _USE_THIS
    # Old firmware reads only the field; HTTP boot and long names need the option.
    field = file if len(file) < 128 and question.way is Way.PXE else b""
    if not field:
        options[_FILE] = file
    head = _HEAD.pack(
        _REPLY, _ETHERNET, _MAC_BYTES, 0, question.transaction, 0, question.flags, question.address.packed,
        bytes(4), server.packed, bytes(4), question.mac, str(server).encode(), field, _MAGIC,
    )  # fmt: skip
    told = b"".join(bytes((code, len(value))) + value for code, value in options.items() if value)
    return (head + told + bytes((_END,))).ljust(_SHORTEST, b"\0")


def _options(data: bytes) -> dict[int, bytes] | None:
    """The options; one that comes several times is one long one (RFC 3396). None if they are cut short."""
    found: dict[int, bytes] = {}
    position = 0
    while position < len(data) and data[position] != _END:
        code = data[position]
        if code == _PAD:
            position += 1
            continue
        end = position + 2 + data[position + 1] if position + 1 < len(data) else len(data) + 1
        if end > len(data):
            return None
        found[code] = found.get(code, b"") + data[position + 2 : end]
        position = end
    return found


def _firmware(options: Mapping[int, bytes]) -> Firmware | None:
    """What a machine is, if it says so twice: by its class, and by its architecture."""
    told = options.get(_ARCHITECTURE, b"")
    if len(told) < 2 or len(told) % 2:
        return None
    way = _way(options.get(_CLASS, b""))
    numbers = (number for (number,) in struct.iter_unpack("!H", told))
    known = (FIRMWARE[number] for number in numbers if number in FIRMWARE)
    return next((each for each in known if each.way is way), None)


def _way(name: bytes) -> Way | None:
    """The class is the word alone, or the word and more behind a colon."""
    word = name.partition(b":")[0]
    return {_PXE: Way.PXE, _HTTP: Way.HTTP}.get(word)
