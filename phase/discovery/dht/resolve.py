"""Looks up the addresses of a host, without keeping an event loop waiting."""

import asyncio
import contextlib
import socket
import threading

from phase.discovery.dht import announcement


async def resolve(host: str, port: int) -> list[tuple[str, int]]:
    """Addresses of a host; empty if it has none now. The resolver runs in a thread of its own."""
    if host.isascii() and host.replace(".", "").isdecimal():
        return [(host, port)] if announcement.is_unicast(host) else []
    loop = asyncio.get_running_loop()
    done: asyncio.Future[list[str]] = loop.create_future()

    def tell(found: list[str]) -> None:
        if not done.done():
            done.set_result(found)

    def look() -> None:
        found: list[str] = []
        with contextlib.suppress(OSError, UnicodeError):
            answers = socket.getaddrinfo(host, port, family=socket.AF_INET, type=socket.SOCK_DGRAM)
            found = [str(each[4][0]) for each in answers[:2]]
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(tell, found)

    threading.Thread(target=look, name="resolver", daemon=True).start()
    return [(address, port) for address in await done]
