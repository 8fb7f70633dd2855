"""Switches a board with the host's own commands."""

import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from lab.board.description import Power
from lab.errors import InfrastructureError

#: Seconds that switching may take on a host of ordinary speed.
_SWITCHING = 60.0


class Switch(Protocol):
    """What switches a board."""

    def on(self) -> None:
        """Switch it on."""

    def off(self) -> None:
        """Switch it off, if it is not."""

    def cycle(self, pause: float) -> None:
        """Switch it off and on again, with such seconds between."""


def run(what: str, line: str, directory: Path, environment: Mapping[str, str], seconds: float) -> None:
    """Run a command of a board file.

    Args:
        what: it does, for messages.
        line: for `sh`.
        directory: where.
        environment: all of it.
        seconds: what it may take.

    Raises:
        InfrastructureError: it failed, or took longer; what it said is the evidence.
    """
    try:
        subprocess.run(
            ["sh", "-c", line],
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise InfrastructureError(
            f"{what} took longer than {seconds:.0f} s: {line}", evidence=_said(error.output)
        ) from error
    except subprocess.CalledProcessError as error:
        raise InfrastructureError(
            f"{what} failed with exit code {error.returncode}: {line}", evidence=_said(error.output)
        ) from error


class Commands:
    """Power by commands.

    Args:
        commands: from the board's file.
        directory: where they run.
        environment: they get.
        factor: what they may take is multiplied by this.
    """

    def __init__(
        self, commands: Power, directory: Path, environment: Mapping[str, str], factor: float = 1.0
    ) -> None:
        self._commands = commands
        self._directory = directory
        self._environment = environment
        self._seconds = _SWITCHING * factor

    def on(self) -> None:
        """Switch it on."""
        self._run("switching the board on", self._commands.on)

    def off(self) -> None:
        """Switch it off."""
        self._run("switching the board off", self._commands.off)

    def cycle(self, pause: float) -> None:
        """Switch it off and on again."""
        if self._commands.cycle:
            self._run("switching the board off and on", self._commands.cycle)
            return
        self.off()
        time.sleep(pause)
        self.on()

    def _run(self, what: str, line: str) -> None:
        run(what, line, self._directory, self._environment, self._seconds)


def _said(output: bytes | None) -> str:
    return (output or b"").decode(errors="replace")[-2000:]
