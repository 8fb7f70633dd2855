"""The words of the kernel command line that describe this machine's network: as dracut has them.

The script `boot/files/network` acts on them, after `boot/files/words` has read them by the same rules. Here
they are judged, for people and for the handoff.

Source: dracut.cmdline(7): ip=, vlan=, bond=, nameserver=; PXELINUX's IPAPPEND for BOOTIF=.
"""

import ipaddress
import re
from collections.abc import Callable

_CARD = "[0-9A-Za-z][0-9A-Za-z._-]{0,14}"
_HOST = re.compile("[0-9A-Za-z.-]*")
_ADDRESS = re.compile("[0-9.]+|[0-9A-Fa-f:]+")
_METHODS = ("dhcp", "on", "any")
_NONE = ("none", "off", "static", "")
_OPTION = re.compile("(mode|miimon|lacp_rate|xmit_hash_policy|primary)=[0-9A-Za-z.+_-]{1,32}")
_BOND = re.compile(rf"({_CARD}):({_CARD}(?:,{_CARD}){{0,7}})(?::([^:]*))?(?::([0-9]{{0,5}}))?")
_VLAN = re.compile(rf"({_CARD}):({_CARD})")
#: The kind of the hardware (Ethernet's), and an address: no group's, which is odd.
_BOOTIF = re.compile("(01[-:])?[0-9a-f][02468ace]([-:][0-9a-f]{2}){5}", re.IGNORECASE)
#: What an Ethernet card may carry, bytes.
_LEAST_MTU, _MOST_MTU = 576, 9216
_MOST_VLAN = 4094


def wants(name: str, value: str) -> str:
    """What a word of the network should have been; empty where it can be used.

    Args:
        name: one of `NAMES`.
        value: what stands behind the `=`, without quotes.
    """
    judge, words = _WORDS[name]
    return "" if value.isascii() and value.isprintable() and judge(value) else words


def _is_ip(value: str) -> bool:
    if value in _METHODS:
        return True
    fields = _fields(value)
    if len(fields) == 2:
        return _is_card(fields[0]) and fields[1] in (*_METHODS, "none", "off")
    if not 4 <= len(fields) <= 8:
        return False
    client, peer, gateway, mask, host, card, method, mtu = (*fields, "", "", "", "")[:8]
    address, beyond = _address(client), _address(gateway or client)
    return (
        address is not None
        and beyond is not None
        and beyond.version == address.version
        and _is_host(address)
        and not peer
        and _is_mask(mask, address.max_prefixlen)
        and _HOST.fullmatch(host) is not None
        and (not card or _is_card(card))
        and method in _NONE
        and (not mtu or _is_mtu(mtu))
    )


def _fields(value: str) -> list[str]:
    """What colons separate; those within brackets are an IPv6 address's own."""
    fields, inside = [""], False
    for character in value:
        if character in "[]":
            inside = character == "["
        elif character == ":" and not inside:
            fields.append("")
        else:
            fields[-1] += character
    return fields


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    if not _ADDRESS.fullmatch(text):
        return None
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _is_mask(text: str, most: int) -> bool:
    if text.isdecimal():
        return len(text) < 4 and 0 < int(text) <= most
    mask = _address(text)
    if mask is None or mask.version != 4 or most != 32 or not int(mask):
        return False
    # The ones come first: what is left of them is one less than a power of two.
    left = int(mask) ^ 0xFFFFFFFF
    return not left & (left + 1)


def _is_host(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return not (address.is_multicast or address.is_unspecified or address.is_loopback)


def _is_card(name: str) -> bool:
    return re.fullmatch(_CARD, name) is not None


def _is_mtu(text: str) -> bool:
    return text.isdecimal() and len(text) < 6 and _LEAST_MTU <= int(text) <= _MOST_MTU


def _is_vlan(value: str) -> bool:
    match = _VLAN.fullmatch(value)
    number = re.search("[0-9]{1,4}$", match[1]) if match else None
    return number is not None and 0 < int(number[0]) <= _MOST_VLAN


def _is_bond(value: str) -> bool:
    match = _BOND.fullmatch(value)
    if match is None:
        return False
    options = [option for option in (match[3] or "").split(",") if option]
    return all(map(_OPTION.fullmatch, options)) and (not match[4] or _is_mtu(match[4]))


def _is_address(value: str) -> bool:
    address = _address(value.removeprefix("[").removesuffix("]"))
    return address is not None and _is_host(address)


def _is_hardware(value: str) -> bool:
    return _BOOTIF.fullmatch(value) is not None


_WORDS: dict[str, tuple[Callable[[str], bool], str]] = {
    "ip": (_is_ip, "ADDRESS::GATEWAY:NETMASK::CARD:none[:MTU], CARD:dhcp, CARD:off or dhcp"),
    "vlan": (_is_vlan, "NAME:CARD, the name ending in the VLAN's number, 1 to 4094"),
    "bond": (_is_bond, "NAME:CARD,CARD[:OPTION=VALUE,...[:MTU]]"),
    "nameserver": (_is_address, "an address"),
    "BOOTIF": (_is_hardware, "a hardware address, 01-52-54-00-12-34-56"),
}
#: Names of the words, as they are written.
NAMES = tuple(_WORDS)
