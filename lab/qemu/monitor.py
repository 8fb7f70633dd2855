"""QMP: a machine's status and events, from before its first instruction."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from qemu.qmp import ExecuteError, QMPClient
from qemu.qmp.error import QMPError
from qemu.qmp.events import EventListener

from lab.errors import InfrastructureError
from lab.qemu.loop import run


class Event(NamedTuple):
    """Something QEMU reported: its name, its data, and when it arrived (`time.monotonic()`)."""

    name: str
    data: dict[str, Any]
    arrived: float


class Monitor:
    """The QMP of one power-on.

    Args:
        name: the machine's.
        stream: where QEMU has connected. It is closed by `close`, and when QEMU does not greet.
        timeout: seconds for its greeting.

    Raises:
        InfrastructureError: QEMU did not greet; it has probably ended with a message.
    """

    def __init__(self, name: str, stream: socket.socket, *, timeout: float = 20) -> None:
        self.events: list[Event] = []
        self._name = name
        self._client = QMPClient(name)
        self._listener = EventListener()
        self._collector: asyncio.Task[None] | None = None

        async def connect() -> None:
            self._client.register_listener(self._listener)
            await asyncio.wait_for(self._client.connect(stream), timeout)
            self._collector = asyncio.create_task(self._collect())

        try:
            run(connect(), timeout=timeout + 5)
        except BaseException as error:
            stream.close()
            if isinstance(error, QMPError | TimeoutError | OSError):
                raise InfrastructureError(f"{name}: QEMU did not open its monitor: {error}") from error
            raise

    async def _collect(self) -> None:
        while True:
            message = await self._listener.get()
            data = message.get("data")
            facts = dict(data) if isinstance(data, Mapping) else {}
            self.events.append(Event(str(message["event"]), facts, time.monotonic()))

    def execute(self, command: str, **arguments: object) -> Any:
        """Run a QMP command and return its answer."""

        async def send() -> Any:
            return await self._client.execute(command, arguments)

        try:
            return run(send())
        except (QMPError, ExecuteError, TimeoutError) as error:
            raise InfrastructureError(f"{self._name}: QMP {command}: {error}") from error

    def close(self) -> None:
        """Disconnect, whatever state it is in."""

        async def stop() -> None:
            # QEMU's end of the line says EOF, or worse; it is going away either way.
            with contextlib.suppress(EOFError, QMPError, OSError, TimeoutError):
                await asyncio.wait_for(self._client.disconnect(), 5)
            if self._collector is not None:
                self._collector.cancel()
                await asyncio.gather(self._collector, return_exceptions=True)

        run(stop())
