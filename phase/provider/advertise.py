"""Tell the local network by multicast DNS what is on offer: one instance per channel and architecture."""

import asyncio
import logging
import socket

from zeroconf import Error as ZeroconfError
from zeroconf import IPVersion, ServiceInfo, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

from phase.discovery.interfaces import addresses
from phase.discovery.records import SERVICE
from phase.provider.status import Advertisement
from phase.provider.store import Store

_log = logging.getLogger(__name__)
#: Seconds between two looks whether there is a new release to tell of.
WATCH_SECONDS = 1.0
#: Seconds to say goodbye on the way out.
GOODBYE_SECONDS = 3.0
#: Others that are remembered; a flood of names takes no more memory than this.
MAX_SEEN = 64


def services(store: Store, *, ips: list[str], port: int, identity: str) -> dict[str, ServiceInfo]:
    """What to advertise, by instance name.

    Args:
        store: the repository.
        ips: IPv4 addresses of this provider.
        port: where it listens.
        identity: eight characters that tell this provider from others.
    """
    found = {}
    for release in store.current().releases.values():
        name = f"phase-{release.channel}-{release.arch}-{identity}"[:63] + f".{SERVICE}"
        found[name] = ServiceInfo(
            SERVICE,
            name,
            port=port,
            addresses=[socket.inet_aton(ip) for ip in ips],
            server=f"phase-{identity}.local.",
            properties={
                "txtvers": "1",
                "channel": release.channel,
                "arch": release.arch,
                "version": str(release.version),
                "id": identity,
            },
        )
    return found


async def advertise(store: Store, told: Advertisement, *, bind: str, port: int, identity: str) -> None:
    """Advertise until cancelled. Trouble is reported in `told`, never raised: serving goes on.

    Args:
        store: the repository; a new release in it is told of.
        told: what the status page shows.
        bind: address that is listened on; `0.0.0.0` or `::` for all.
        port: where it listens.
        identity: eight characters that tell this provider from others.
    """
    ips = [bind] if bind not in ("", "0.0.0.0", "::") else [a.ip for a in addresses()]  # noqa: S104
    ips = [ip for ip in ips if ":" not in ip]
    told.problem = "starting"
    if not ips:
        told.problem = f"no IPv4 address to advertise for {bind}"
        return
    try:
        zeroconf = AsyncZeroconf(interfaces=ips, ip_version=IPVersion.V4Only)
    except OSError as error:
        told.problem = f"multicast DNS cannot be used: {error}"
        _log.warning("%s", told.problem)
        return
    known: dict[str, ServiceInfo] = {}

    def changed(zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        note(told, name, state_change)

    browser = AsyncServiceBrowser(zeroconf.zeroconf, SERVICE, handlers=[changed])
    try:
        while True:
            wanted = services(store, ips=ips, port=port, identity=identity)
            try:
                await _apply(zeroconf, known, wanted)
                told.problem = ""
            except (OSError, ZeroconfError) as error:
                told.problem = f"registration failed: {error or type(error).__name__}"
            told.instances = sorted(known)
            await asyncio.sleep(WATCH_SECONDS)
    finally:
        told.instances, told.problem = [], "stopped"
        await browser.async_cancel()
        try:
            async with asyncio.timeout(GOODBYE_SECONDS):
                await zeroconf.async_unregister_all_services()
        except (OSError, TimeoutError) as error:
            _log.debug("no goodbye: %s", error)
        await zeroconf.async_close()


def note(told: Advertisement, name: str, change: ServiceStateChange) -> None:
    """Remember who else is there, or that they have gone."""
    if change is ServiceStateChange.Removed:
        told.seen.discard(name)
    elif len(told.seen) < MAX_SEEN:
        told.seen.add(name[:255])


async def _apply(
    zeroconf: AsyncZeroconf, known: dict[str, ServiceInfo], wanted: dict[str, ServiceInfo]
) -> None:
    for name, info in wanted.items():
        if name not in known:
            await (await zeroconf.async_register_service(info))
        elif known[name].properties != info.properties:
            await (await zeroconf.async_update_service(info))
        known[name] = info
    for name in known.keys() - wanted.keys():
        await (await zeroconf.async_unregister_service(known[name]))
        del known[name]
