"""A small DHCP server that lives on a segment (RFC 2131, options of RFC 2132), and answers ARP for itself.

It gives each hardware address the next address of the segment, and a way out when a router is there.
"""

import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

from lab.net.packet import EVERYBODY, IPV4, arp_reply, ethernet, udp

_MAGIC = b"\x63\x82\x53\x63"
_DISCOVER, _OFFER, _REQUEST, _DECLINE, _ACK, _NAK = 1, 2, 3, 4, 5, 6


@dataclass(frozen=True, slots=True)
class DhcpFaults:
    """What is wrong with a server. Without arguments: nothing.

    A slow one is one at the end of a slow cable: `segment.link("dhcp").from_machine = Faults(delay=5)`.

    Attributes:
        silent: it does not answer.
        nak: it offers, and then refuses.
        address: what it gives to everybody.
        lease: seconds, in place of its own.
        options: more of them, or others in place of its own; an empty one is left out.
    """

    silent: bool = False
    nak: bool = False
    address: IPv4Address | None = None
    lease: int | None = None
    options: Mapping[int, bytes] = field(default_factory=dict)


class DhcpServer:
    """Leases for one segment.

    Args:
        network: the segment's addresses; the server has the first, machines get those from the tenth on.
        lease: seconds.

    Attributes:
        leases: hardware address (6 bytes) to address.
        declined: addresses that a machine has found to be another's; they are not given out again.
        options: told to everybody besides the usual; a router puts itself here.
        faults: what is wrong with it; may be set at any time.
    """

    def __init__(self, network: IPv4Network, *, lease: int = 86_400) -> None:
        self.network = network
        self.address = network.network_address + 1
        self.mac = b"\x52\x54\x00\x4c\x00\x01"
        self.leases: dict[bytes, IPv4Address] = {}
        self.declined: set[IPv4Address] = set()
        self.options: dict[int, bytes] = {}
        self.faults = DhcpFaults()
        self._lease = lease
        self._top = network.broadcast_address
        self._lock = threading.Lock()

    def lease_of(self, mac: bytes) -> IPv4Address:
        """The address of a machine, whether it has asked yet or not.

        Raises:
            ValueError: the segment is full.
        """
        with self._lock:
            if mac not in self.leases:
                address = self.network.network_address + 10 + len(self.leases) + len(self.declined)
                if address >= self._top:
                    raise ValueError(f"{self.network} has no free address")
                self.leases[mac] = address
            return self.leases[mac]

    def reserve(self) -> IPv4Address:
        """An address, from the top, that no machine will get.

        Raises:
            ValueError: the segment is full.
        """
        with self._lock:
            used = len(self.leases) + len(self.declined)
            if self._top - 1 < self.network.network_address + 10 + used:
                raise ValueError(f"{self.network} has no free address")
            self._top -= 1
            return self._top

    def __call__(self, frame: bytes) -> list[bytes]:
        """Answer a frame; the switch calls this for broadcast frames."""
        kind = frame[12:14]
        if kind == b"\x08\x06":
            return self._arp(frame)
        if kind == b"\x08\x00" and len(frame) >= 14 + 20 + 8 + 240 and frame[23] == 17:
            return self._dhcp(frame)
        return []

    def _arp(self, frame: bytes) -> list[bytes]:
        if len(frame) < 42 or frame[20:22] != b"\0\x01" or frame[38:42] != self.address.packed:
            return []
        return [arp_reply(self.mac, self.address, frame)]

    def _dhcp(self, frame: bytes) -> list[bytes]:
        header = 14 + (frame[14] & 15) * 4
        if frame[header + 2 : header + 4] != b"\0\x43":
            return []
        message = frame[header + 8 :]
        if len(message) < 240 or message[0] != 1 or message[236:240] != _MAGIC:
            return []
        options = _options(message[240:])
        kind = options.get(53, b"\0")[0]
        if kind not in (_DISCOVER, _REQUEST, _DECLINE) or self.faults.silent:
            return []
        asked = options.get(54)
        if asked is not None and asked != self.address.packed:
            return []
        mac = message[28:34]
        if kind == _DECLINE:
            self._decline(mac, options.get(50, b""))
            return []
        try:
            address = self.lease_of(mac)
        except ValueError:
            # Full: a server with nothing to give keeps silent.
            return []
        answer = _OFFER if kind == _DISCOVER else _NAK if self.faults.nak else _ACK
        return [self._reply(message, self.faults.address or address, answer)]

    def _decline(self, mac: bytes, address: bytes) -> None:
        with self._lock:
            if mac in self.leases and self.leases[mac].packed == address:
                self.declined.add(self.leases.pop(mac))

    def _reply(self, message: bytes, address: IPv4Address, kind: int) -> bytes:
        faults = self.faults
        lease = self._lease if faults.lease is None else faults.lease
        given = IPv4Address(0) if kind == _NAK else address
        fixed = struct.pack(
            "!BBBB4sHH4s4s4s4s16s64s128s",
            2, 1, 6, 0, message[4:8], 0, 0x8000, bytes(4), given.packed, self.address.packed, bytes(4),
            message[28:44], b"", b"",
        )  # fmt: skip
        told = {53: bytes([kind]), 54: self.address.packed}
        if kind != _NAK:
            told |= {
                51: struct.pack("!I", lease),
                1: self.network.netmask.packed,
                28: self.network.broadcast_address.packed,
            }
            told |= self.options
            told |= faults.options
        options = b"".join(bytes([code, len(value)]) + value for code, value in told.items() if value)
        body = fixed + _MAGIC + options + b"\xff"
        # Broadcast: the machine has no address to be found by yet.
        datagram = udp((self.address, 67), (IPv4Address("255.255.255.255"), 68), body)
        return ethernet(EVERYBODY, self.mac, IPV4, datagram)


def _options(data: bytes) -> dict[int, bytes]:
    found = {}
    position = 0
    while position + 1 < len(data) and data[position] != 255:
        if data[position] == 0:
            position += 1
            continue
        length = data[position + 1]
        found[data[position]] = data[position + 2 : position + 2 + length]
        position += 2 + length
    return {code: value for code, value in found.items() if value}
