"""The sockets of one segment: they hear only that segment, and answer from the address that it knows.

The one for DHCP is bound to the broadcast address, so it hears what machines without an address say to
everybody, and takes nothing from a DHCP server of this machine that the server's clients send to it alone.
"""

import errno
import socket
import struct
from ipaddress import IPv4Address

from phase.netboot.cards import Card
from phase.netboot.errors import NetbootError

#: Ports of DHCP servers and clients, of proxies that are asked again, and of TFTP.
SERVER, CLIENT, AGAIN, TFTP = 67, 68, 4011, 69
_EVERYBODY = "255.255.255.255"
#: Datagrams that the kernel keeps while this process is busy, bytes.
_KEPT = 1 << 18
# linux/in.h; Python names it from 3.14 on.
_PACKET_INFO = 8


def dhcp(card: Card) -> socket.socket:
    """Hears what machines of the segment say to all DHCP servers.

    Raises:
        NetbootError: it cannot be opened.
    """
    return _open(card, _EVERYBODY, SERVER)


def again(card: Card) -> socket.socket:
    """Hears machines that ask a proxy once more, when they have an address.

    Raises:
        NetbootError: it cannot be opened.
    """
    return _open(card, str(card.address.ip), AGAIN)


def tftp(card: Card) -> socket.socket:
    """Hears requests for files.

    Raises:
        NetbootError: it cannot be opened.
    """
    return _open(card, str(card.address.ip), TFTP)


def transfer(card: Card, reader: tuple[str, int]) -> socket.socket:
    """Speaks with one reader, from a port of its own.

    Raises:
        OSError: there is no port or descriptor for it.
    """
    opened = _bare(card)
    try:
        opened.bind((str(card.address.ip), 0))
        opened.connect(reader)
    except BaseException:
        opened.close()
        raise
    return opened


def send(opened: socket.socket, data: bytes, to: tuple[str, int], source: IPv4Address) -> None:
    """Send a datagram from an address of this machine. One that does not fit is lost, as on any network.

    Raises:
        OSError: the network is gone, or does not take it.
    """
    chosen = struct.pack("=i4s4s", 0, source.packed, bytes(4))
    try:
        opened.sendmsg([data], [(socket.IPPROTO_IP, _PACKET_INFO, chosen)], 0, to)
    except BlockingIOError:
        return


def _open(card: Card, address: str, port: int) -> socket.socket:
    try:
        opened = _bare(card)
        try:
            opened.bind((address, port))
        except BaseException:
            opened.close()
            raise
    except OSError as error:
        raise _refused(card, port, error) from error
    return opened


def _bare(card: Card) -> socket.socket:
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _KEPT)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, card.name.encode() + b"\0")
    except BaseException:
        opened.close()
        raise
    return opened


def _refused(card: Card, port: int, error: OSError) -> NetbootError:
    where = f"UDP port {port} on {card.name}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return NetbootError(
            f"{where} may not be opened",
            hint="Run it as root, or give it the capability CAP_NET_BIND_SERVICE.",
        )
    if error.errno == errno.EADDRINUSE:
        return NetbootError(
            f"{where} is in use by a program that does not share it",
            hint=f"`ss -lunp 'sport = :{port}'` names it. dnsmasq shares it with the line "
            "`bind-dynamic`. Otherwise run this on another machine of the segment.",
        )
    return NetbootError(f"{where} cannot be opened: {error.strerror or error}")
