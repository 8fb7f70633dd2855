"""A provider's mDNS and nothing else, for `tests.networks`.

    python -m tests.advertiser REPOSITORY BIND PORT

Answers each line on its input with a line of JSON: what it says of itself. Ends with its input.
"""

import asyncio
import secrets
import sys
import time
from pathlib import Path

import msgspec

from phase.discovery.mdns import link
from phase.provider.advertise import advertise
from phase.provider.metrics import Metrics
from phase.provider.status import Advertisement, status
from phase.provider.store import Store


async def main(repository: str, bind: str, port: str) -> None:
    """Advertise until the input ends."""
    store, told = Store(Path(repository)), Advertisement()
    running = asyncio.create_task(
        advertise(store, told, hosts=bind.split(","), port=int(port), identity=secrets.token_hex(4))
    )
    while await asyncio.to_thread(sys.stdin.readline):
        found = status(store, Metrics(), told, now=time.time()).mdns
        print(msgspec.json.encode(found).decode(), flush=True)
    running.cancel()
    await asyncio.wait([running])


if __name__ == "__main__":
    # Nobody else is there whom a probe would have to wait for.
    link.PROBE_SECONDS = 0.02
    asyncio.run(main(*sys.argv[1:]))
