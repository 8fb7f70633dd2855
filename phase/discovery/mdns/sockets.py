"""The sockets of multicast DNS: one for each interface and IP version, with the sender of each datagram.

Every refusal of a network (no route, no permission, no buffers) is an OSError of one socket.
"""

import contextlib
import ipaddress
import socket
import struct
from typing import NamedTuple, Self

from phase.discovery.interfaces import Interface, Ip

PORT = 5353
GROUP4, GROUP6 = "224.0.0.251", "ff02::fb"
#: linux/in.h, linux/in6.h: the Python of today has no names for them.
_IP_PKTINFO, _IP_MULTICAST_ALL, _IPV6_MULTICAST_ALL = 8, 49, 29
_MAX_DATAGRAM = 9100


class Datagram(NamedTuple):
    """A received datagram: its sender, its interface, and whether it was sent to this machine alone."""

    data: bytes
    source: Ip
    port: int
    number: int
    unicast: bool


class Socket:
    """Multicast DNS on one interface in one IP version.

    Args:
        interface: which.
        version: 4 or 6.
        port: to listen on; 0 for any free one, so that answers come to this socket alone.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, interface: Interface, version: int, *, port: int = PORT) -> None:
        self.interface = interface
        self.version = version
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            if port:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with contextlib.suppress(OSError, AttributeError):
                    self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            (self._set_up4 if version == 4 else self._set_up6)(port)
        except BaseException:
            self._socket.close()
            raise

    def _set_up4(self, port: int) -> None:
        index, set_ = self.interface.number, self._socket.setsockopt
        set_(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
        set_(socket.IPPROTO_IP, socket.IP_TTL, 255)
        set_(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        set_(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        # Send from the interface's own address: by default the kernel may use that of another interface.
        own = next((each.ip.packed for each in self.interface.addresses if each.version == 4), bytes(4))
        here = struct.pack("=4s4si", socket.inet_aton(GROUP4), own, index)
        set_(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, here)
        # Do not receive for groups that other sockets have joined, on other interfaces.
        with contextlib.suppress(OSError):
            set_(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
        self._socket.bind(("", port))
        if port:
            set_(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, here)

    def _set_up6(self, port: int) -> None:
        index, set_ = self.interface.number, self._socket.setsockopt
        set_(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        set_(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        set_(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)
        set_(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 1)
        set_(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        set_(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        with contextlib.suppress(OSError):
            set_(socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)
        self._socket.bind(("::", port))
        if port:
            group = socket.inet_pton(socket.AF_INET6, GROUP6) + struct.pack("=I", index)
            set_(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)

    def fileno(self) -> int:
        """The descriptor, to wait for."""
        return self._socket.fileno()

    def multicast(self, data: bytes) -> None:
        """Send to all machines on the interface.

        Raises:
            OSError: it cannot be sent.
        """
        if self.version == 4:
            self._socket.sendto(data, (GROUP4, PORT))
        else:
            self._socket.sendto(data, (GROUP6, PORT, 0, self.interface.number))

    def send(self, data: bytes, to: Ip, port: int) -> None:
        """Send to one machine on the interface.

        Raises:
            OSError: it cannot be sent.
        """
        if self.version == 4:
            self._socket.sendto(data, (str(to), port))
        else:
            self._socket.sendto(data, (str(to), port, 0, self.interface.number if to.is_link_local else 0))

    def receive(self) -> Datagram | None:
        """The next datagram; None if none has come.

        Raises:
            OSError: the interface is gone.
        """
        try:
            data, ancillary, flags, sender = self._socket.recvmsg(_MAX_DATAGRAM, 256)
        except BlockingIOError:
            return None
        if flags & socket.MSG_TRUNC:
            data = b""
        index, unicast = self.interface.number, False
        for level, kind, info in ancillary:
            if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
                index, _, to = struct.unpack_from("=i4s4s", info)
                unicast = not ipaddress.IPv4Address(to).is_multicast
            elif level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
                to, index = struct.unpack_from("=16sI", info)
                unicast = not ipaddress.IPv6Address(to).is_multicast
        return Datagram(
            data, ipaddress.ip_address(str(sender[0]).partition("%")[0]), sender[1], index, unicast
        )

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
