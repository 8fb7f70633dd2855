"""Tell the local networks by multicast DNS what is on offer: one instance per channel and architecture."""

import ipaddress
import logging
import socket
from collections.abc import Sequence

from phase.discovery.interfaces import Interface, Ip, speaking
from phase.discovery.mdns.claims import Offer
from phase.discovery.mdns.responder import Chooser, Responder
from phase.provider.status import STARTING, Advertisement, MdnsInterface
from phase.provider.store import Store

_log = logging.getLogger(__name__)
#: Seconds between two looks whether there is a new release to tell of.
WATCH_SECONDS = 1.0
_ANY4, _ANY6 = ("", "0.0.0.0"), ("", "::")  # noqa: S104


async def advertise(store: Store, told: Advertisement, *, bind: str, port: int, identity: str) -> None:
    """Advertise until cancelled. Trouble is reported in `told`, never raised: serving goes on.

    Args:
        store: the repository; a new release in it is told of.
        told: what the status page shows.
        bind: address that is listened on, or several with commas; `0.0.0.0`, `::` or nothing for all.
        port: where it listens.
        identity: eight characters that tell this provider from others.
    """
    said = STARTING

    def changed() -> None:
        told.instances, told.problem = responder.instances, responder.problem
        told.seen = responder.seen
        told.interfaces = [
            MdnsInterface(each.name, list(each.addresses), each.state) for each in responder.told
        ]

    def look() -> None:
        nonlocal said
        releases = store.current().releases.values()
        responder.offer(Offer(each.channel, each.arch, each.version) for each in releases)
        if told.problem != said:
            # What lasts no longer than this is not worth a line.
            said = told.problem
            _log.info("mDNS: %s", said or f"answering for {', '.join(told.instances)}")

    told.problem = STARTING
    responder = Responder(port=port, identity=identity, choose=chooser(bind), changed=changed)
    try:
        await responder.run(look, WATCH_SECONDS)
    finally:
        told.instances, told.interfaces, told.problem = [], [], "stopped"


def chooser(bind: str) -> Chooser:
    """Which addresses to tell on which interface, where this is listened on."""
    binds = [each.strip() for each in bind.split(",")] or [""]

    def choose(here: list[Interface]) -> dict[int, Sequence[Ip]]:
        listened = [address for each in binds for address in _numbers(each)]
        wild = {4 for each in binds if each in _ANY4} | {4 for each in binds if each == "::"}
        wild |= {6 for each in binds if each in _ANY6}
        usual = {each.number for each in speaking(here)}
        chosen: dict[int, Sequence[Ip]] = {}
        for interface in here:
            if not interface.multicast:
                continue
            ips: list[Ip] = []
            if interface.number in usual:
                ips = [each.ip for each in interface.addresses if each.version in wild]
            for ip, scope in listened:
                on = ip in (each.ip for each in interface.addresses) or (
                    interface.loopback and ip.is_loopback and interface.on_link(ip)
                )
                if on and scope in (0, interface.number):
                    ips.append(ip)
            if ips:
                chosen[interface.number] = list(dict.fromkeys(ips))
        return chosen

    return choose


def _numbers(bind: str) -> list[tuple[Ip, int]]:
    """The addresses that a name or an address means at this moment, each with its zone's number or 0."""
    if bind in (*_ANY4, *_ANY6):
        return []
    try:
        found = socket.getaddrinfo(bind, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    numbers = []
    for family, _, _, _, address in found:
        ip = ipaddress.ip_address(str(address[0]).partition("%")[0])
        scope = int(address[3]) if family == socket.AF_INET6 and len(address) == 4 else 0
        numbers.append((ip, scope))
    return numbers
