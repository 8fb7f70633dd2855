"""A relay, a node that answers, or one that asks: `python -m tests.phase.peer.program WHAT …`.

It prints one JSON value a line. `serve` and `call` take the port to listen on and the relay's URL; `call`
the server's key, too, and how many seconds to go on.
"""

import asyncio
import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable, Coroutine

from aiohttp import web

from phase.identity import Identity
from phase.peer.errors import PeerError
from phase.peer.iroh import IrohTransport, Options
from phase.peer.relay import Relay
from phase.peer.transport import Address, Connection
from phase.provider.background import Background


def say(**facts: object) -> None:
    print(json.dumps({"at": round(time.monotonic(), 3), **facts}), flush=True)


async def relay(port: str) -> None:
    made = Relay(lambda key: True)
    app = web.Application()
    app.add_routes(made.routes())
    runner = web.AppRunner(app)
    await runner.setup()
    made.start(Background())
    await web.TCPSite(runner, "0.0.0.0", int(port), reuse_address=True).start()
    say(ready=True)
    await asyncio.Event().wait()


async def _transport(port: str, url: str) -> IrohTransport:
    listen = (f"0.0.0.0:{port}",)
    return await IrohTransport.start(Identity.ephemeral(), Options(listen=listen, relays=(url,)))


async def serve(port: str, url: str) -> None:
    transport = await _transport(port, url)
    say(key=transport.key)
    tasks = set()
    while True:
        connection = await transport.accept()
        tasks.add(asyncio.ensure_future(_answer(connection)))


async def _answer(connection: Connection) -> None:
    with contextlib.suppress(PeerError):
        while True:
            stream = await connection.accept()
            await stream.send(await stream.receive(100))
            await stream.finish()


async def call(port: str, url: str, key: str, seconds: str) -> None:
    transport = await _transport(port, url)
    before, longest, after = None, 0.0, 0
    try:
        connection = await transport.connect(Address(key, (), (url,)), 20)
        end = time.monotonic() + float(seconds)
        while time.monotonic() < end:
            began = time.monotonic()
            stream = await connection.open()
            await stream.send(b"x")
            await stream.finish()
            assert await stream.receive(100) == b"x"
            took = time.monotonic() - began
            after = 0 if took > longest else after + 1
            longest = max(longest, took)
            path = connection.path()
            if path is not None and (path.kind, path.remote) != before:
                before = path.kind, path.remote
                say(kind=path.kind, remote=path.remote, took=round(took, 4))
            await asyncio.sleep(0.05)
        taken = [each.kind for each in connection.taken]
        say(taken=taken, hosts=transport.address().hosts, longest=round(longest, 3), after=after)
    except PeerError as error:
        say(error=str(error))
    await transport.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    what: dict[str, Callable[..., Coroutine[None, None, None]]] = {
        "relay": relay,
        "serve": serve,
        "call": call,
    }
    asyncio.run(what[sys.argv[1]](*sys.argv[2:]))
