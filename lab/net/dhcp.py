"""A small DHCP server that lives on a segment (RFC 2131, options of RFC 2132), and answers ARP for itself.

It gives each hardware address the next address of the segment and nothing that leads out of it.
"""

import struct
import threading
from ipaddress import IPv4Address, IPv4Network

_BROADCAST = b"\xff" * 6
_MAGIC = b"\x63\x82\x53\x63"
_DISCOVER, _OFFER, _REQUEST, _ACK = 1, 2, 3, 5


class DhcpServer:
    """Leases for one segment.

    Args:
        network: the segment's addresses; the server has the first, machines get those from the tenth on.
        lease: seconds.

    Attributes:
        leases: hardware address (6 bytes) to address.
    """

    def __init__(self, network: IPv4Network, *, lease: int = 86_400) -> None:
        self.network = network
        self.address = network.network_address + 1
        self.mac = b"\x52\x54\x00\x4c\x00\x01"
        self.leases: dict[bytes, IPv4Address] = {}
        self._lease = lease
        self._lock = threading.Lock()

    def lease_of(self, mac: bytes) -> IPv4Address:
        """The address of a machine, whether it has asked yet or not.

        Raises:
            ValueError: the segment is full.
        """
        with self._lock:
            if mac not in self.leases:
                address = self.network.network_address + 10 + len(self.leases)
                if address >= self.network.broadcast_address:
                    raise ValueError(f"{self.network} has no free address")
                self.leases[mac] = address
            return self.leases[mac]

    def __call__(self, frame: bytes) -> list[bytes]:
        """Answer a frame; the switch calls this for frames that are for nobody in particular."""
        kind = frame[12:14]
        if kind == b"\x08\x06":
            return self._arp(frame)
        if kind == b"\x08\x00" and len(frame) >= 14 + 20 + 8 + 240 and frame[23] == 17:
            return self._dhcp(frame)
        return []

    def _arp(self, frame: bytes) -> list[bytes]:
        if len(frame) < 42 or frame[20:22] != b"\0\x01" or frame[38:42] != self.address.packed:
            return []
        sender, sender_ip = frame[22:28], frame[28:32]
        reply = b"\0\x01\x08\0\x06\x04\0\x02" + self.mac + self.address.packed + sender + sender_ip
        return [sender + self.mac + b"\x08\x06" + reply]

    def _dhcp(self, frame: bytes) -> list[bytes]:
        header = 14 + (frame[14] & 15) * 4
        if frame[header + 2 : header + 4] != b"\0\x43":
            return []
        message = frame[header + 8 :]
        if len(message) < 240 or message[0] != 1 or message[236:240] != _MAGIC:
            return []
        options = _options(message[240:])
        kind = options.get(53, b"\0")[0]
        if kind not in (_DISCOVER, _REQUEST):
            return []
        asked = options.get(54)
        if asked is not None and asked != self.address.packed:
            return []
        mac = message[28:34]
        try:
            address = self.lease_of(mac)
        except ValueError:
            # Full: a server with nothing to give keeps silent.
            return []
        answer = _OFFER if kind == _DISCOVER else _ACK
        return [self._reply(message, mac, address, answer)]

    def _reply(self, message: bytes, mac: bytes, address: IPv4Address, kind: int) -> bytes:
        fixed = struct.pack(
            "!BBBB4sHH4s4s4s4s16s64s128s",
            2, 1, 6, 0, message[4:8], 0, 0x8000, bytes(4), address.packed, self.address.packed, bytes(4),
            message[28:44], b"", b"",
        )  # fmt: skip
        options = b"".join(
            bytes([code, len(value)]) + value
            for code, value in (
                (53, bytes([kind])),
                (54, self.address.packed),
                (51, struct.pack("!I", self._lease)),
                (1, self.network.netmask.packed),
                (28, self.network.broadcast_address.packed),
            )
        )
        body = fixed + _MAGIC + options + b"\xff"
        udp = struct.pack("!HHHH", 67, 68, 8 + len(body), 0) + body
        ip = struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, self.address.packed, b"\xff" * 4
        )
        ip = ip[:10] + struct.pack("!H", _checksum(ip)) + ip[12:]
        # Broadcast: the machine has no address to be found by yet.
        return _BROADCAST + self.mac + b"\x08\0" + ip + udp


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


def _checksum(header: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
