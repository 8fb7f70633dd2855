"""Runs a DHT node that announces what is offered here, such as releases, each in its place."""

import asyncio
import functools
import ipaddress
import logging
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from phase.discovery.dht import Dht
from phase.discovery.dht.announcement import LIFETIME, is_near, key, sign
from phase.discovery.interfaces import interfaces, source
from phase.discovery.records import DiscoveryError
from phase.identity import Identity
from phase.provider.status import DhtTold
from phase.provider.store import Store

_log = logging.getLogger(__name__)
#: Seconds between two checks for a new release to announce.
WATCH_SECONDS = 1.0
#: Seconds after which everything is announced again: twice before it expires.
REFRESH_SECONDS = LIFETIME / 3
#: Seconds to the next try when other nodes are known but none keeps an announcement; doubled each time.
RETRY_SECONDS = (2.0, 60.0)
#: The clock may be set by this many seconds without everything being announced again.
CLOCK_SECONDS = 10.0


class Offer(NamedTuple):
    """What is announced in one place.

    Attributes:
        mark: another value means that it has changed, and is announced again at once.
        sign: makes the announcement of one IPv4 address.
    """

    mark: object
    sign: Callable[[str], bytes]


#: By the place in the DHT; asked for again and again.
Offers = Callable[[], Mapping[bytes, Offer]]


@dataclass(frozen=True)
class Options:
    """How to take part.

    Attributes:
        peers: nodes to ask first, hosts and ports; empty for the very first node of a DHT.
        address: IPv4 address to announce; when left out, the address that other nodes see.
        datagram: a UDP socket that the service manager has bound; left out, the node binds its own.
    """

    peers: Sequence[tuple[str, int]] = ()
    address: str = ""
    datagram: socket.socket | None = None


async def announce(
    store: Store, told: DhtTold, options: Options, *, hosts: Sequence[str], port: int
) -> None:
    """Announce the releases of a repository; see `take_part`.

    Args:
        store: the repository; a new release in it is announced as well.
        told: see there.
        options: see there.
        hosts: see there.
        port: of HTTP (TCP) and of the DHT node (UDP).
    """
    # The key lasts as long as the process: it only tells this provider's announcements from others'.
    identity = Identity.ephemeral()

    def offers() -> dict[bytes, Offer]:
        return {
            key(channel, arch): Offer(
                one.version, functools.partial(_signed, identity, port, channel, arch, one.version)
            )
            for (channel, arch), one in store.current().releases.items()
        }

    await take_part(offers, told, options, hosts=hosts, port=port)


async def take_part(
    offers: Offers, told: DhtTold, options: Options, *, hosts: Sequence[str], port: int
) -> None:
    """Take part until cancelled. Problems are reported in `told` and never raised: serving goes on.

    Args:
        offers: what to announce.
        told: receives the state that the status page shows.
        options: how to take part.
        hosts: numeric addresses that are listened on; `0.0.0.0` for all of IPv4.
        port: UDP; 0 for any.

    Raises:
        DiscoveryError: the UDP port cannot be listened on.
    """
    # Here, since nothing else of a provider needs what peers say.
    from phase.peer.records import read_any

    own = Dht(serves=True, read=read_any)
    told.begin()
    bind = _bound(hosts)
    while not bind:
        told.tried(f"{', '.join(hosts)} is not an IPv4 address")
        await asyncio.sleep(RETRY_SECONDS[1])
    try:
        port = await own.start(bind, port, given=options.datagram)
    except DiscoveryError as error:
        told.tried(str(error))
        _log.warning("%s", error)
        raise
    told.running = True
    try:
        while True:
            try:
                await _keep_telling(own, offers, told, options, bind, port)
            except Exception:
                # Others may send something that this code does not foresee: serving and this go on.
                _log.exception("the DHT node failed, and goes on")
                told.tried("it failed; the log says why")
                await asyncio.sleep(RETRY_SECONDS[1])
    finally:
        told.running, told.nodes = False, 0
        told.tried("stopped")
        own.close()


async def _keep_telling(
    own: Dht, offers: Offers, told: DhtTold, options: Options, bind: str, port: int
) -> None:
    said: object = None
    again = retry = 0.0
    while True:
        offered = offers()
        marks = {place: each.mark for place, each in offered.items()}
        own.networks = _networks(bind)
        # Announce again when a wrong clock is corrected: earlier announcements have expired, or never will.
        now = marks, own.networks, round((time.time() - time.monotonic()) / CLOCK_SECONDS)
        if now != said or time.monotonic() >= again:
            if options.peers:
                await own.join(options.peers)
            hosts = await _hosts(own, options, bind)
            keepers = [
                await own.tell(place, each.sign, hosts, fixed=options.address or None)
                for place, each in offered.items()
                if hosts
            ]
            told.keepers = min(keepers, default=0)
            told.tried(_problem(options, own, hosts, told.keepers))
            retry = min(max(2 * retry, RETRY_SECONDS[0]), RETRY_SECONDS[1]) if told.problem else 0.0
            again = time.monotonic() + (retry or REFRESH_SECONDS)
            said, told.address = now, ", ".join(f"{host}:{port}" for host in hosts)
        told.nodes, told.held = len(own.known), len(own.held) + len(own.own)
        await asyncio.sleep(WATCH_SECONDS)


def _signed(identity: Identity, port: int, channel: str, arch: str, version: int, host: str) -> bytes:
    return sign(identity, channel=channel, arch=arch, host=host, port=port, version=version, now=time.time())


async def _hosts(own: Dht, options: Options, bind: str) -> list[str]:
    """The addresses to announce: first the one for clients outside this machine's own networks."""
    if options.address:
        return [options.address]
    seen = await own.seen_as()
    if bind != "0.0.0.0":  # noqa: S104
        return list(dict.fromkeys(each for each in (seen, bind) if each))
    far = [str(each.ip) for each in own.networks if not is_near(str(each.ip))]
    near = [str(each.ip) for each in own.networks]
    usual = source()
    first = [usual] if usual in near else []
    return list(dict.fromkeys(each for each in (seen, *first, *(far or near)) if each))


def _problem(options: Options, own: Dht, hosts: Sequence[str], keepers: int) -> str:
    if not hosts:
        return "no IPv4 address to announce"
    if options.peers and not own.known:
        return f"no DHT node answers at {', '.join(f'{name}:{port}' for name, port in options.peers)}"
    if own.known and not keepers:
        return f"no other DHT node keeps {' or '.join(hosts)} as this provider's address"
    return ""


def _bound(hosts: Sequence[str]) -> str:
    """The address of the DHT node: all of IPv4, or the first IPv4 address that is listened on."""
    found = [each for each in hosts if ":" not in each]
    return "0.0.0.0" if "0.0.0.0" in found else next(iter(found), "")  # noqa: S104


def _networks(bind: str) -> list[ipaddress.IPv4Interface]:
    """This machine's own IPv4 addresses that are listened on, with their networks."""
    try:
        here = interfaces()
    except DiscoveryError:
        return []
    found = [each for one in here for each in one.addresses if isinstance(each, ipaddress.IPv4Interface)]
    return [each for each in found if bind in ("0.0.0.0", str(each.ip))]  # noqa: S104
