"""Tell the local networks by multicast DNS what is offered: one instance per channel and architecture."""

import ipaddress
import logging
from collections.abc import Sequence

from phase.discovery.interfaces import Interface, Ip, speaking
from phase.discovery.mdns.claims import Offer
from phase.discovery.mdns.responder import Chooser, Responder
from phase.provider.status import Advertisement, MdnsInterface
from phase.provider.store import Store

_log = logging.getLogger(__name__)
#: Seconds between two checks for a new release to advertise.
WATCH_SECONDS = 1.0


async def advertise(
    store: Store, told: Advertisement, *, hosts: Sequence[str], port: int, identity: str
) -> None:
    """Advertise until cancelled. Problems are reported in `told` and never raised: serving goes on.

    Args:
        store: the repository; a new release in it is advertised as well.
        told: receives the state that the status page shows.
        hosts: numeric addresses that are listened on; `0.0.0.0` for all of IPv4, `::` for all of IPv6.
        port: the TCP port that is listened on.
        identity: eight characters that tell this provider from others.
    """
    said: str | None = None

    def changed() -> None:
        told.instances, told.problem = responder.instances, responder.problem
        told.starting = responder.starting
        told.seen = responder.seen
        told.interfaces = [
            MdnsInterface(each.name, list(each.addresses), str(each.state)) for each in responder.told
        ]

    def look() -> None:
        nonlocal said
        releases = store.current().releases.values()
        responder.offer(Offer(each.channel, each.arch, each.version) for each in releases)
        if not told.starting and told.problem != said:
            # A problem that is over by the next look is not worth a line.
            said = told.problem
            _log.info("mDNS: %s", said or f"answering for {', '.join(told.instances)}")

    told.begin()
    responder = Responder(port=port, identity=identity, choose=chooser(hosts), changed=changed)
    try:
        await responder.run(look, WATCH_SECONDS)
    finally:
        told.instances, told.interfaces = [], []
        told.tried("stopped")


def chooser(hosts: Sequence[str]) -> Chooser:
    """Choose which addresses to tell on which interface.

    Args:
        hosts: addresses that are listened on, as `listening.hosts` gives them.
    """
    wild = {4 for each in hosts if each == "0.0.0.0"} | {6 for each in hosts if each == "::"}  # noqa: S104
    listened = []
    for each in hosts:
        number, _, zone = each.partition("%")
        ip = ipaddress.ip_address(number)
        if not ip.is_unspecified:
            listened.append((ip, zone))

    def choose(here: list[Interface]) -> dict[int, Sequence[Ip]]:
        usual = {each.number for each in speaking(here)}
        chosen: dict[int, Sequence[Ip]] = {}
        for interface in here:
            ips: list[Ip] = []
            if interface.number in usual:
                ips = [each.ip for each in interface.addresses if each.version in wild]
            for ip, zone in listened:
                own = ip in (each.ip for each in interface.addresses)
                loop = interface.loopback and ip.is_loopback and interface.on_link(ip)
                if (own or loop) and zone in ("", interface.name, str(interface.number)):
                    ips.append(ip)
            if ips and interface.multicast:
                chosen[interface.number] = list(dict.fromkeys(ips))
        return chosen

    return choose
