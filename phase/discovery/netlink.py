"""Reads this machine's network interfaces from Linux, and watches their changes (rtnetlink).

Source: rtnetlink(7), linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h.
"""

import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

_ROUTE = 0
_NEW_LINK, _GET_LINK, _NEW_ADDRESS, _GET_ADDRESS = 16, 18, 20, 22
_ERROR, _DONE = 2, 3
_REQUEST, _DUMP = 0x1, 0x300
#: Groups of messages: links, IPv4 addresses, IPv6 addresses.
_GROUPS = 0x1 | 0x10 | 0x100
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBi")
_ATTRIBUTE = struct.Struct("=HH")
_IFLA_NAME, _IFLA_MASTER = 3, 10
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
#: Limits for one list: seconds for the kernel, and its messages.
_SECONDS, _MOST = 2.0, 20_000


class Link(NamedTuple):
    """An interface as the kernel lists it; `flags` are those of netdevice(7), `master` is 0 without one."""

    number: int
    name: str
    flags: int
    master: int


class Address(NamedTuple):
    """An address as the kernel lists it: interface, packed address, prefix, IFA_F_* flags."""

    number: int
    packed: bytes
    prefix: int
    flags: int


def dump() -> tuple[list[Link], list[Address]]:
    """All interfaces and all addresses.

    Raises:
        OSError: the kernel does not answer: it has no netlink, or does not allow it.
    """
    links, addresses = [], []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _ROUTE) as kernel:
        kernel.settimeout(_SECONDS)
        for kind, body in _ask(kernel, _GET_LINK):
            if kind == _NEW_LINK and len(body) >= _LINK.size:
                links.append(_link(body))
        for kind, body in _ask(kernel, _GET_ADDRESS):
            if kind == _NEW_ADDRESS and len(body) >= _ADDRESS.size:
                addresses.append(_address(body))
    return links, [address for address in addresses if len(address.packed) in (4, 16)]


def watch() -> socket.socket:
    """A socket that becomes readable whenever an interface or an address comes, goes or changes.

    Raises:
        OSError: the kernel has no netlink, or does not allow it.
    """
    kernel = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, _ROUTE
    )
    try:
        kernel.bind((0, _GROUPS))
    except OSError:
        kernel.close()
        raise
    return kernel


def drain(kernel: socket.socket) -> bool:
    """Read all messages from a socket of `watch`; returns whether there were any."""
    some = False
    for _ in range(1000):
        try:
            kernel.recv(1 << 16)
        except BlockingIOError:
            break
        except OSError:
            pass  # more came than the kernel keeps (ENOBUFS): then something has changed, too
        some = True
    return some


def _ask(kernel: socket.socket, kind: int) -> Iterator[tuple[int, bytes]]:
    # One byte for the address family, the rest is padding up to the length of the longest head.
    request = bytes(_LINK.size)
    kernel.sendto(_HEADER.pack(_HEADER.size + len(request), kind, _REQUEST | _DUMP, 1, 0) + request, (0, 0))
    for _ in range(_MOST):
        data = memoryview(kernel.recv(1 << 18))
        while len(data) >= _HEADER.size:
            length, found, _, _, _ = _HEADER.unpack_from(data)
            if found == _DONE or not _HEADER.size <= length <= len(data):
                return
            body = bytes(data[_HEADER.size : length])
            if found == _ERROR:
                number = -struct.unpack_from("=i", body)[0]
                raise OSError(number, f"the kernel does not list its interfaces (error {number})")
            yield found, body
            data = data[(length + 3) & ~3 :]


def _attributes(body: bytes, start: int) -> dict[int, bytes]:
    found = {}
    while start + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, start)
        if length < _ATTRIBUTE.size:
            break
        found[kind & 0x3FFF] = body[start + _ATTRIBUTE.size : start + length]
        start += (length + 3) & ~3
    return found


def _link(body: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    attributes = _attributes(body, _LINK.size)
    name = attributes.get(_IFLA_NAME, b"").split(b"\0")[0].decode("utf-8", "replace")
    master = attributes.get(_IFLA_MASTER, b"")
    return Link(index, name, flags, struct.unpack("=I", master)[0] if len(master) == 4 else 0)


def _address(body: bytes) -> Address:
    _, prefix, flags, _, index = _ADDRESS.unpack_from(body)
    attributes = _attributes(body, _ADDRESS.size)
    # Of a point-to-point link, IFA_ADDRESS is the other end.
    packed = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS, b"")
    more = attributes.get(_IFA_FLAGS, b"")
    return Address(index, packed, prefix, struct.unpack("=I", more)[0] if len(more) == 4 else flags)
