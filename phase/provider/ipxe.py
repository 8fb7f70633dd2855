"""The script that makes iPXE start a seed."""

import ipaddress
import re

from aiohttp import web

from phase.provider.catalog import Release
from phase.provider.problems import problem

_NAME = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?\Z"
)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_.-]{1,254})(?::([0-9]{1,5}))?\Z")


def script(request: web.Request, release: Release) -> web.Response:
    """Answer with the script, or with the reason why this release has none.

    Args:
        request: its `Host` field names this provider as the client knows it.
        release: the release to start.
    """
    if "rootfs" in release.artifacts or not {"kernel", "initramfs"} <= release.artifacts.keys():
        return problem(
            404, "iPXE starts a seed: kernel and initramfs alone; this release is for seeds to start"
        )
    hosts = request.headers.getall("Host", [])
    host = hosts[0] if len(hosts) == 1 and is_host(hosts[0]) else _own_address(request)
    base = f"{request.scheme}://{host}/{release.channel}/{release.arch}"
    # The publisher's command line must not become commands of iPXE, nor be cut short.
    line = " ".join(release.cmdline.split())
    special = next((word for word in line.split() if _means_something_to_ipxe(word)), "")
    if special:
        return problem(404, f"iPXE has no way to quote {special!r}, which is in the kernel command line")
    # The card that iPXE has used, for the seed to prefer.
    booted = "" if "BOOTIF=" in line else " BOOTIF=01-${netX/mac:hexhyp}"
    return web.Response(
        text=f"#!ipxe\nkernel {base}/kernel initrd=initramfs {line}{booted}\n"
        f"initrd --name initramfs {base}/initramfs\nboot\n"
    )


def is_host(text: str) -> bool:
    """Whether a text is a name or an address, with or without a port, as in a URL (RFC 3986, 3.2.2).

    Args:
        text: from a client.
    """
    match = _HOST.match(text)
    if match is None or (match[2] is not None and not 0 < int(match[2]) < 65_536):
        return False
    host = match[1]
    try:
        if host.startswith("["):
            ipaddress.IPv6Address(host[1:-1])
        elif host.rstrip(".").rpartition(".")[2].isdecimal():
            # A name may not end in a part of digits alone, so this must be an address.
            ipaddress.IPv4Address(host)
        else:
            return _NAME.match(host) is not None
    except ValueError:
        return False
    return True


def _own_address(request: web.Request) -> str:
    """The address and port that the connection came to."""
    found = request.transport.get_extra_info("sockname") if request.transport is not None else None
    if not isinstance(found, tuple) or len(found) < 2:
        return "localhost"
    ip = ipaddress.ip_address(str(found[0]).partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip
    return f"[{ip}]:{found[1]}" if ip.version == 6 else f"{ip}:{found[1]}"


def _means_something_to_ipxe(word: str) -> bool:
    """Whether iPXE's shell reads a word as a separator, a comment or a setting to expand."""
    return word in ("||", "&&", ";") or word.startswith("#") or "${" in word
