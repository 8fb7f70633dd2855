"""A board: a serial line, a power switch, something it boots from, and maybe a cable into a segment."""

import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from lab import machine
from lab.board import labgrid, loader, power
from lab.board.description import Description
from lab.board.line import Line, Port, SerialPort
from lab.board.uplink import Uplink
from lab.console import SILENCE, Console
from lab.errors import MisuseError
from lab.machine import Capability
from lab.marks import Mark
from lab.net.switch import Port as SwitchPort
from lab.shell import Login, Shell
from lab.timeline import phases

#: Bytes that one typed line carries: an adapter's buffer is small, and a long line garbles more easily.
_PIECE = 200


class Board:
    """A machine of the lab that is a board; switched off at first.

    Args:
        name: in its lab.
        description: what its file says.
        kernel: for its medium.
        initrd: for its medium.
        append: words for its command line; the console and the file's own are added.
        directory: for its files.
        port: of the switch its cable is plugged into.
        segment: that switch's.
        factor: timeouts are multiplied by this.
        elsewhere: called with its console while somebody waits for it; see `lab.console.Console`.

    Attributes:
        power_on: `time.monotonic()` when it was last switched on; 0 before.
    """

    def __init__(
        self,
        name: str,
        description: Description,
        *,
        kernel: Path,
        initrd: Path,
        append: str,
        directory: Path,
        port: SwitchPort | None = None,
        segment: str = "",
        factor: float = 1.0,
        elsewhere: Callable[[Console], None] = lambda console: None,
    ) -> None:
        self.description = description
        self.power_on = 0.0
        self._name = name
        self._files = {"kernel": kernel, "initrd": initrd}
        self._append = " ".join(f"console={description.console} {append} {description.append}".split())
        self._directory = directory
        self._factor = factor
        self._elsewhere = elsewhere
        self._segment = segment
        self._console: Console | None = None
        self._line: Line | None = None
        self._running = ExitStack()
        self._starts = 0
        self._environment = dict(os.environ)
        self._port = port
        if port is not None:
            self._environment |= {
                "LAB_CABLE_BOARD": str(port.machine_socket),
                "LAB_CABLE_LAB": str(port.switch_socket),
            }

    @property
    def name(self) -> str:
        """Unique in its lab."""
        return self._name

    @property
    def arch(self) -> str:
        """`x86_64` or `arm64`."""
        return self.description.arch

    @property
    def append(self) -> str:
        """Its kernel's command line."""
        return self._append

    @property
    def segments(self) -> tuple[str, ...]:
        """The segment its cable is plugged into, if any."""
        return (self._segment,) if self._segment else ()

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it can do."""
        return frozenset({"power", "console", "network"} if self._segment else {"power", "console"})

    @property
    def facts(self) -> Mapping[str, str]:
        """What it is made of."""
        return {"arch": self.arch, "accel": "board", "board": self.description.name, "firmware": "its own"}

    @property
    def console(self) -> Console:
        """Its serial line, read since it was switched on."""
        if self._console is None:
            raise MisuseError(f"{self.name} has not been started")
        return self._console

    @property
    def marks(self) -> list[Mark]:
        """The boot marks that arrived whole since it was switched on."""
        return list(self._console.marks) if self._console else []

    @property
    def running(self) -> bool:
        """Whether the lab has it switched on."""
        return self._line is not None

    def start(self) -> None:
        """Write its medium, switch it on, and see it through its boot loader.

        Raises:
            InfrastructureError: its line, its power or its medium fails.
            MachineError: its boot loader does not take what is typed.
            MisuseError: it is on.
        """
        if self.running:
            raise MisuseError(f"{self.name} is running already")
        with ExitStack() as stack:
            line, switch = self._reach(stack)
            stack.callback(switch.off)
            switch.off()
            self._write()
            time.sleep(self.description.power.pause)
            self._boot(line, stack, switch.on)

    def cycle(self) -> None:
        """Take its power away and give it back; its medium stays as it is.

        Raises:
            InfrastructureError: its line or its power fails.
            MachineError: its boot loader does not take what is typed.
        """
        self.stop()
        with ExitStack() as stack:
            line, switch = self._reach(stack)
            stack.callback(switch.off)
            self._boot(line, stack, lambda: switch.cycle(self.description.power.pause))

    def _boot(self, line: Line, stack: ExitStack, switch_on: Callable[[], None]) -> None:
        self._starts += 1
        log = self._directory / f"console-{self._starts}.log"
        self._console = Console(
            self.name,
            line.socket,
            log,
            checked=True,
            lost=lambda: line.failure,
            factor=self._factor,
            elsewhere=self._elsewhere,
        )
        stack.callback(self._console.close)
        self.power_on = time.monotonic()
        switch_on()
        wanted = self.description.loader
        if wanted is not None:
            loader.command(self._console, wanted, self.append)
        self._line = line
        self._running = stack.pop_all()

    def _reach(self, stack: ExitStack) -> tuple[Line, power.Switch]:
        """Open its line and find its switch; both are let go of with the stack."""
        described = self.description
        switch: power.Switch
        port: Port
        if described.labgrid is not None:
            port, switch = labgrid.reach(described.labgrid, described.directory, stack)
        else:
            port = SerialPort(described.serial)
            switch = power.Commands(described.power, described.directory, self._environment, self._factor)
        wire = described.serial
        line = Line(self.name, port, character_delay=wire.character_delay, line_delay=wire.line_delay)
        # Where no console comes to own it: the medium may fail first.
        stack.callback(line.socket.close)
        stack.callback(line.close)
        if self._port is not None and described.network and described.network.uplink != "sockets":
            stack.enter_context(Uplink(described.network.uplink, self._port))
        return line, switch

    def _write(self) -> None:
        medium = self._directory / "medium"
        shutil.rmtree(medium, ignore_errors=True)
        medium.mkdir()
        for name, path in self._files.items():
            shutil.copyfile(path, medium / name)
        (medium / "cmdline").write_text(f"{self.append}\n")
        described = self.description
        environment = self._environment | {"LAB_MEDIUM": str(medium)}
        power.run(
            "writing the board's medium",
            described.medium.write,
            described.directory,
            environment,
            described.medium.seconds * self._factor,
        )
        shutil.rmtree(medium)

    def stop(self) -> None:
        """Switch it off. Safe to call at any time, any number of times."""
        self._line = None
        self._running.close()

    def shell(self, *, timeout: float = 60, login: Login | None = None) -> Shell:
        """A shell on its serial line; `login` is user and password, for a machine that asks for them."""
        return Shell(self.console, timeout=timeout, piece=_PIECE, login=login)

    def wait_mark(
        self, step: str, *, outcome: str = "ok", timeout: float = 60, quiet: float = SILENCE
    ) -> Mark:
        """Wait for a step of its boot to end; see `lab.machine.wait_mark`."""
        return machine.wait_mark(self, step, outcome=outcome, timeout=timeout, quiet=quiet)

    def timeline(self, kernels: Mapping[str, str]) -> dict[str, float]:
        """Phase to seconds; see `lab.timeline.phases`."""
        return phases(self.marks, power_on=self.power_on, kernels=kernels)

    def evidence(self) -> str:
        """What somebody needs to understand a failure, as text."""
        failure = self._line.failure if self._line else ""
        parts = [
            f"board {self.name}: " + ", ".join(f"{name} {value}" for name, value in self.facts.items()),
            f"serial line: {failure or 'there'}",
            "marks: " + (", ".join(f"{m.step}={m.outcome}@{m.t}" for m in self.marks) or "none"),
            f"command line: {self.append}",
            "last lines on the console:\n" + (self._console.tail() if self._console else "(never started)"),
        ]
        return "\n".join(parts)
