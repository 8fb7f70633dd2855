"""This machine's network interfaces: those in use, their addresses, and their changes.

Read from the kernel by netlink. Without netlink (on another system, or in a sandbox), the C library is asked
through `ifaddr`, and must be asked again to see changes.
"""

import contextlib
import ipaddress
import re
import socket
from typing import NamedTuple

from phase.discovery import netlink
from phase.discovery.records import DiscoveryError

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
Interfaced = ipaddress.IPv4Interface | ipaddress.IPv6Interface
#: Limits for the interfaces in use at the same time, and for the addresses of one.
MAX_INTERFACES, MAX_ADDRESSES = 64, 16
#: Flags of an interface (netdevice(7)).
_UP, _LOOPBACK, _POINT_TO_POINT, _RUNNING, _MULTICAST = 0x1, 0x8, 0x10, 0x40, 0x1000
#: Flags of an address: not in use yet, found to be another machine's, no longer to be used, for privacy.
_TENTATIVE, _DUPLICATE, _DEPRECATED, _TEMPORARY = 0x40, 0x08, 0x20, 0x01
_PLAIN_NAME = re.compile(r"[A-Za-z0-9._-]{1,15}")


class Interface(NamedTuple):
    """An interface that is up and has an address.

    Attributes:
        number: of the kernel; also the scope of its link-local addresses.
        name: for people.
        addresses: with their networks; the best one to be reached at comes first.
        multicast: whether multicast can be sent on it.
        loopback: whether it leads to this machine only.
    """

    number: int
    name: str
    addresses: tuple[Interfaced, ...]
    multicast: bool = True
    loopback: bool = False

    @property
    def zone(self) -> str:
        """The part after the `%` of a link-local address: the name, or the number if the name is unusual."""
        return self.name if _PLAIN_NAME.fullmatch(self.name) else str(self.number)

    def has(self, version: int) -> bool:
        """Whether it has an address of this IP version."""
        return any(each.version == version for each in self.addresses)

    def on_link(self, ip: Ip) -> bool:
        """Whether an address is on this interface's own networks."""
        if ip.version == 6 and ip.is_link_local:
            return True
        return any(ip.version == each.version and ip in each.network for each in self.addresses)


def interfaces() -> list[Interface]:
    """The interfaces in use: up, with a carrier, with an address.

    Raises:
        DiscoveryError: this machine does not give the list.
    """
    try:
        links, told = netlink.dump()
    except (OSError, AttributeError):
        return _without_netlink()
    found = []
    for link in links:
        own = [each for each in told if each.number == link.number]
        kept = [each for each in own if not each.flags & (_TENTATIVE | _DUPLICATE)]
        # A port of a bridge: the bridge itself is used.
        kept = [each for each in kept if not (link.master and _is_link_local(each.packed))]
        kept.sort(key=lambda each: bool(each.flags & (_DEPRECATED | _TEMPORARY)))
        up = link.flags & _UP and (link.flags & _RUNNING or link.flags & _LOOPBACK)
        if not up or not kept:
            continue
        addresses = tuple(_interfaced(each.packed, each.prefix) for each in kept[:MAX_ADDRESSES])
        loopback = bool(link.flags & _LOOPBACK)
        multicast = loopback or bool(link.flags & _MULTICAST)
        found.append(Interface(link.number, link.name, addresses, multicast, loopback))
    return found[:MAX_INTERFACES]


def speaking(found: list[Interface]) -> list[Interface]:
    """The interfaces to use for mDNS: loopback only if it is the only one."""
    able = [each for each in found if each.multicast]
    return [each for each in able if not each.loopback] or able


def source(version: int = 4) -> str:
    """This machine's own address for the way to other networks, otherwise any; empty if it has none.

    Nothing is sent: the kernel says which address it would use.
    """
    family, far = (socket.AF_INET, "198.18.0.1") if version == 4 else (socket.AF_INET6, "2001:db8::1")
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.connect((far, 9))
            return str(asking.getsockname()[0])
    except OSError:
        pass  # no way out; the networks of this machine itself are left
    try:
        here = sorted(interfaces(), key=lambda each: each.loopback)
    except DiscoveryError:
        return ""
    found = (each.ip for one in here for each in one.addresses if each.version == version)
    return next((str(ip) for ip in found if ip.version == 4 or not ip.is_link_local), "")


class Watch:
    """Tells when this machine's interfaces may have changed."""

    def __init__(self) -> None:
        self._kernel: socket.socket | None = None
        with contextlib.suppress(OSError, AttributeError):
            self._kernel = netlink.watch()

    def fileno(self) -> int | None:
        """A descriptor that becomes readable then; None if the caller must poll."""
        return None if self._kernel is None else self._kernel.fileno()

    def changed(self) -> bool:
        """Whether anything changed since the last call; always true if that is not known."""
        return True if self._kernel is None else netlink.drain(self._kernel)

    def close(self) -> None:
        """Stop watching."""
        if self._kernel is not None:
            self._kernel.close()


def _is_link_local(packed: bytes) -> bool:
    return ipaddress.ip_address(packed).is_link_local


def _interfaced(packed: bytes, prefix: int) -> Interfaced:
    ip = ipaddress.ip_address(packed)
    return ipaddress.ip_interface((ip, min(prefix, ip.max_prefixlen)))


def _without_netlink() -> list[Interface]:
    try:
        import ifaddr
    except ImportError as error:
        raise DiscoveryError("this machine does not list its network interfaces: no netlink") from error
    try:
        adapters = list(ifaddr.get_adapters())
    except OSError as error:
        raise DiscoveryError(
            f"this machine does not list its network interfaces: {error.strerror or error}",
            hint="In a sandbox, allow AF_NETLINK sockets.",
        ) from error
    found = []
    for adapter in adapters:
        addresses = tuple(
            ipaddress.ip_interface(
                f"{each.ip if isinstance(each.ip, str) else each.ip[0]}/{each.network_prefix}"
            )
            for each in adapter.ips[:MAX_ADDRESSES]
        )
        loopback = all(each.is_loopback for each in addresses)
        if addresses and adapter.index is not None:
            found.append(Interface(adapter.index, str(adapter.nice_name), addresses, True, loopback))
    return found[:MAX_INTERFACES]
