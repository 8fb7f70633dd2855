"""Boards that labgrid reaches, through every power switch, console server and exporter that it knows.

The extra `labgrid` installs it.
"""

import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lab.board.description import Labgrid
from lab.board.line import Port
from lab.board.power import Switch
from lab.errors import InfrastructureError, MisuseError

_POLL = 0.05


class _Console:
    """labgrid's ConsoleProtocol as a port."""

    def __init__(self, driver: Any, turn: threading.Lock) -> None:
        self._driver = driver
        self._turn = turn

    def receive(self) -> bytes:
        """Bytes that have come."""
        from pexpect import TIMEOUT

        try:
            with self._turn:
                return bytes(self._driver.read(size=1, timeout=_POLL))
        except TIMEOUT:
            return b""

    def transmit(self, data: bytes) -> None:
        """Send bytes."""
        with self._turn:
            self._driver.write(data)

    def close(self) -> None:
        """The target lets go of its drivers itself."""


class _Power:
    """labgrid's PowerProtocol as a switch."""

    def __init__(self, driver: Any, turn: threading.Lock) -> None:
        self._driver = driver
        self._turn = turn

    def on(self) -> None:
        """Switch it on."""
        with self._turn:
            self._driver.on()

    def off(self) -> None:
        """Switch it off."""
        with self._turn:
            self._driver.off()

    def cycle(self, pause: float) -> None:
        """Switch it off and on again; how long it stays off is labgrid's."""
        del pause
        with self._turn:
            self._driver.cycle()


def reach(wanted: Labgrid, directory: Path, stack: ExitStack) -> tuple[Port, Switch]:
    """Reach a target of a labgrid environment.

    Args:
        wanted: the environment and the target.
        directory: that its path starts from.
        stack: lets go of the target.

    Returns:
        Its console and its power.

    Raises:
        MisuseError: labgrid is not installed, or the environment has no such target.
        InfrastructureError: labgrid does not reach it.
    """
    try:
        from labgrid import Environment
        from labgrid.protocol import ConsoleProtocol, PowerProtocol
    except ImportError as error:
        raise MisuseError(
            "the board file names a labgrid environment, and labgrid is not installed: pip install labgrid"
        ) from error
    try:
        environment = Environment(str(directory / wanted.environment))
        stack.callback(environment.cleanup)
        target = environment.get_target(wanted.target)
        if target is None:
            raise MisuseError(f"{wanted.environment} has no target {wanted.target!r}")
        found = [target.get_driver(kind) for kind in (ConsoleProtocol, PowerProtocol)]
        for driver in found:
            target.activate(driver)
    except MisuseError:
        raise
    except Exception as error:  # labgrid raises what its many drivers do
        raise InfrastructureError(f"labgrid does not reach {wanted.target!r}: {error}") from error
    # labgrid keeps one account of the steps it takes: one thread at a time.
    turn = threading.Lock()
    return _Console(found[0], turn), _Power(found[1], turn)
