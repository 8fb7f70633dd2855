"""Runs a provider in the test's own event loop, and asks it."""

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from phase.provider import serve


@asynccontextmanager
async def running(
    repository: Path, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[int, asyncio.Event, "asyncio.Task[None]"]]:
    stop = asyncio.Event()
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        serve(
            repository,
            bind="127.0.0.1",
            port=0,
            mdns=False,
            ready=port.set_result,
            stop=stop,
            drain=10,
            tls=tls,
        )
    )
    both: list[asyncio.Future[Any]] = [task, port]
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    try:
        yield port.result(), stop, task
    finally:
        stop.set()
        await task


async def ask(writer: asyncio.StreamWriter, path: str) -> None:
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await writer.drain()


def descriptors(path: Path) -> list[str]:
    """The descriptors of this process that are open on a file."""
    found = []
    for each in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.path.samefile(f"/proc/self/fd/{each}", path):
                found.append(each)
    return found
