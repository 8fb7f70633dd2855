"""A virtual machine."""

import contextlib
import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, TypeVar

from lab import machine
from lab.console import SILENCE, Console
from lab.errors import InfrastructureError, MachineDied, MachineError, MisuseError, WaitTimeout
from lab.machine import Capability
from lab.marks import Mark
from lab.net.switch import Switch
from lab.qemu import command, kernel, migration, tpm
from lab.qemu.monitor import Event, Monitor
from lab.qemu.pipes import Pipes
from lab.qemu.port import Port, accept, listening
from lab.qemu.process import Process
from lab.shell import Login, Shell, Suspended
from lab.timeline import phases

T = TypeVar("T")

#: Seconds for QEMU to open its console and its monitor.
_START = 20
#: Seconds in which events of a QEMU that has just ended may still be on their way.
_LATE = 1.0
#: Seconds in which a shell that listens on the port answers.
_LISTENS = 10.0
#: Why a machine is off, by QEMU's word.
_REASONS = {
    "guest-reset": "asked for a reset, which only a machine made with reboots=True gets",
    "guest-shutdown": "switched itself off",
    "guest-panic": "panicked",
}


class VM:
    """A QEMU virtual machine; the `lab` fixture makes them.

    Args:
        spec: what it is made of.
        segments: where its cards are plugged in, by the segment's name.
        directory: for its sockets, log and console; its maker removes it.
        factor: timeouts are multiplied by this.
        elsewhere: called with its console while somebody waits for it; see `lab.console.Console`.
        admit: called with it before it is switched on; raises what speaks against that.

    Attributes:
        power_on: `time.monotonic()` when it was last switched on; 0 before that.
        argv: QEMU's command line.
        stage: the one it was started from; empty when it booted by itself.
    """

    def __init__(
        self,
        spec: command.Spec,
        segments: Mapping[str, Switch],
        directory: Path,
        *,
        factor: float = 1.0,
        elsewhere: Callable[[Console], None] = lambda console: None,
        admit: Callable[["VM"], None] = lambda vm: None,
    ) -> None:
        self.spec = spec
        self.segments = segments
        self.directory = directory
        self.power_on = 0.0
        self.argv = self._argv()
        self.stage = ""
        self._factor = factor
        self._elsewhere = elsewhere
        self._admit = admit
        self._console: Console | None = None
        self._port: Port | None = None
        self._monitor: Monitor | None = None
        self._process: Process | None = None
        self._tpm: Process | None = None
        self._starts = 0

    @property
    def name(self) -> str:
        """Unique in its lab."""
        return self.spec.name

    @property
    def arch(self) -> str:
        """`x86_64` or `arm64`."""
        return self.spec.arch

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it can do."""
        found: set[Capability] = {"power", "console", "monitor", "disk image", "clone"}
        if self.spec.cards:
            found.add("network")
        return frozenset(found)

    @property
    def facts(self) -> Mapping[str, str]:
        """What it is made of."""
        return {
            "arch": self.spec.arch,
            "memory": f"{self.spec.memory} MiB",
            "cpus": str(self.spec.cpus),
            "accel": self.spec.accel,
            "firmware": "uefi" if self.spec.firmware else "direct" if self.spec.kernel else "bios",
            **({"stage": self.stage} if self.stage else {}),
        }

    @property
    def console(self) -> Console:
        """Its serial console, read since it was switched on; still there when it is off again."""
        if self._console is None:
            raise MisuseError(f"{self.name} has not been started")
        return self._console

    @property
    def append(self) -> str:
        """Its kernel's command line."""
        return self.spec.append

    @property
    def marks(self) -> list[Mark]:
        """The boot marks it has printed since it was switched on."""
        return list(self._console.marks) if self._console else []

    @property
    def events(self) -> list[Event]:
        """What QEMU has reported of it since it was switched on."""
        return list(self._monitor.events) if self._monitor else []

    @property
    def running(self) -> bool:
        """Whether QEMU lives."""
        return self._process is not None and self._process.running

    @property
    def pid(self) -> int | None:
        """QEMU's process, while it lives."""
        return self._process.pid if self._process is not None and self.running else None

    def start(self) -> None:
        """Switch it on; what it said and did before is forgotten.

        Raises:
            InfrastructureError: QEMU did not start; its own message is in the evidence.
            MisuseError: it is on, or its kernel is for another architecture or cannot be read.
        """
        self._switch_on(self.argv)

    def record(self, memory: Path) -> None:
        """Switch it on so that it can be frozen.

        Args:
            memory: the file that becomes its memory.

        Raises:
            InfrastructureError: QEMU did not start.
            MisuseError: it is on.
        """
        self._switch_on(self._argv(command.Memory(memory, frozen=False)))

    def freeze(self, state: Path) -> None:
        """Keep the state of its devices; with its memory that is all of it. It stands still from now on.

        Args:
            state: the file to write.

        Raises:
            InfrastructureError: it cannot be kept, or its memory is in no file.
        """
        self.qmp("stop")
        migration.save(self.qmp, state)

    def resume(self, stage: str, memory: Path, state: Path) -> None:
        """Switch it on as another one was frozen; it stands still until `go_on`.

        Args:
            stage: what that one had come to, for reports.
            memory: the file it was recorded into; only read.
            state: what `freeze` has kept.

        Raises:
            InfrastructureError: QEMU did not start, or does not take what was kept.
            MisuseError: it is on.
        """
        self._switch_on(self._argv(command.Memory(memory, frozen=True)))
        self.stage = stage
        try:
            migration.load(self.qmp, state, timeout=_START * self._factor)
        except InfrastructureError as error:
            self.stop()
            said = f"QEMU said: {self._qemu_log() or 'nothing'}"
            raise InfrastructureError(error.what, evidence=said) from error
        except BaseException:
            self.stop()
            raise

    def go_on(self) -> None:
        """Let a machine that stands still run."""
        self.qmp("cont")

    def _argv(self, memory: command.Memory | None = None) -> list[str]:
        paths = {"console": self.directory / "console", "qmp": self.directory / "qmp"}
        return command.argv(self.spec, **paths, memory=memory)

    def _switch_on(self, argv: list[str]) -> None:
        if self.running:
            raise MisuseError(f"{self.name} is running already")
        if self.spec.kernel:
            kernel.check(self.name, self.spec.kernel, self.arch)
        self._admit(self)
        self.stop()
        self._starts += 1
        self._console = self._port = None
        self.power_on = 0.0
        self.stage = ""
        self._monitor = None
        try:
            self._start(argv)
        except InfrastructureError as error:
            # A QEMU that takes no word of its command line closes the monitor first.
            ended = self._killed()
            self.stop()
            raise InfrastructureError(
                f"{self.name}: {ended}" if ended else error.what,
                evidence=f"QEMU said: {self._qemu_log() or 'nothing'}",
            ) from error
        except BaseException:
            self.stop()
            raise

    def _start(self, argv: list[str]) -> None:
        with contextlib.ExitStack() as stack:
            pipes = Pipes(self.directory / "console")
            stack.callback(pipes.unlink)
            # Read from birth, as the port is: a line without a reader stalls the machine.
            self._console = Console(
                self.name,
                pipes,
                self._kept("console"),
                lost=self._killed,
                went=self._went,
                factor=self._factor,
                elsewhere=self._elsewhere,
            )
            listener = None
            if self.spec.port:
                listener = stack.enter_context(listening(self.directory / command.PORT))
            # It listens before QEMU starts, so no event is missed. qemu.qmp has a server of its own, but it
            # does not close a connection that arrives while it stops.
            qmp = stack.enter_context(listening(self.directory / "qmp"))
            if self.spec.tpm:
                self._tpm = tpm.start(self.directory)
            switched_on = time.monotonic()
            self._process = Process(argv, self.directory / "qemu.log")
            self._come(pipes.connect)
            if listener is not None:
                self._port = Port(
                    self._console,
                    self._come(functools.partial(accept, listener)),
                    self._kept(command.PORT),
                    lost=self._killed,
                    factor=self._factor,
                    elsewhere=self._elsewhere,
                )
            self.power_on = switched_on
            stream = self._come(functools.partial(accept, qmp))
            self._monitor = Monitor(self.name, stream, timeout=_START * self._factor)

    def _kept(self, line: str) -> Path:
        return self.directory / f"{line}-{self._starts}.log"

    def _come(self, come: Callable[[], T | None]) -> T:
        """Ask again and again whether QEMU has come, while it lives."""
        deadline = time.monotonic() + _START * self._factor
        while (came := come()) is None:
            if not self.running:
                raise InfrastructureError(f"{self.name}: {self._killed() or 'QEMU ended at once'}")
            if time.monotonic() > deadline:
                raise InfrastructureError(f"{self.name}: QEMU did not open its console, port or monitor")
        return came

    def _killed(self) -> str:
        """What ended QEMU, if that was neither its machine nor this object."""
        return self._process.killed() if self._process is not None else ""

    def _went(self) -> str:
        """What switched the machine off, as QEMU has reported it; empty when it has not."""
        deadline = time.monotonic() + _LATE
        while True:
            for event in self.events:
                if event.name == "SHUTDOWN":
                    return _REASONS.get(str(event.data.get("reason")), "")
            if time.monotonic() > deadline:
                return ""
            time.sleep(0.02)

    def stop(self) -> None:
        """Switch it off at once. Safe to call at any time, any number of times."""
        try:
            for process in (self._process, self._tpm):
                if process is not None:
                    process.stop()
            self._process = self._tpm = None
        finally:
            try:
                if self._monitor is not None:
                    self._monitor.close()
            finally:
                for line in (self._port, self._console):
                    if line is not None:
                        line.close()

    def shell(
        self,
        *,
        timeout: float = 60,
        login: Login | None = None,
        over: Literal["serial", "port"] = "serial",
    ) -> Shell:
        """A shell on the serial console, or on the virtio port if it has one and listens there.

        Args:
            timeout: seconds until it must have answered.
            login: user and password, for a machine that asks for them.
            over: which line; the serial one is what a board has, too. Files go over the port in any case,
                if a shell listens there.

        Raises:
            MisuseError: it has no such port.
            WaitTimeout: no shell answers.
        """
        line = self.console
        if over == "port":
            if self._port is None:
                raise MisuseError(f"{self.name} has no virtio port; make it with port=True")
            line = self._port
        return Shell(line, timeout=timeout, login=login, faster=self._faster(line))

    def _faster(self, line: Console) -> Callable[[], Shell | None]:
        """Gives a shell on the virtio port, made when it is first asked for; None where none listens."""
        port = self._port if line is self._console else None

        @functools.cache
        def over_port() -> Shell | None:
            if port is None:
                return None
            try:
                return Shell(port, timeout=_LISTENS)
            except WaitTimeout:
                return None

        return over_port

    def wake(self, suspended: Suspended, line: str) -> None:
        """Give what waits on its console its line.

        Raises:
            MachineError: it cannot become what the line says.
        """
        result = Shell(self.console, suspended=suspended).resume(line)
        if result.code:
            raise MachineError(
                f"{self.name} cannot go on from the stage {self.stage}", evidence=result.output
            )

    def qmp(self, name: str, **arguments: object) -> object:
        """Run a QMP command.

        Raises:
            InfrastructureError: QEMU refuses it, or is gone.
        """
        if self._monitor is None:
            raise MisuseError(f"{self.name} has not been started")
        return self._monitor.execute(name, **arguments)

    def qmp_status(self) -> str:
        """QEMU's word for it: `running`, `paused`, `guest-panicked`, ...; `off` without QEMU."""
        if not self.running:
            return "off"
        answer = self.qmp("query-status")
        return str(answer["status"]) if isinstance(answer, dict) else str(answer)

    def screen(self) -> bytes:
        """What is on its screen: a PNG file.

        Raises:
            MisuseError: it has no screen.
            InfrastructureError: QEMU does not tell; it must be 7.1 or later, with PNG.
        """
        if not self.spec.display:
            raise MisuseError(f"{self.name} has no screen; make it with display=True")
        path = self.directory / "screen.png"
        try:
            self.qmp("screendump", filename=str(path), format="png")
            return path.read_bytes()
        finally:
            path.unlink(missing_ok=True)

    def wait_mark(
        self, step: str, *, outcome: str = "ok", timeout: float = 60, quiet: float = SILENCE
    ) -> Mark:
        """Wait for a step of its boot to end; see `lab.machine.wait_mark`.

        Args:
            step: its name.
            outcome: how it must end.
            timeout: seconds on a host of ordinary speed.
            quiet: such seconds after which a machine that says nothing at all counts as dead; `math.inf`
                for one that may.
        """
        return machine.wait_mark(self, step, outcome=outcome, timeout=timeout, quiet=quiet)

    def wait_event(self, name: str, *, timeout: float = 60) -> Event:
        """Wait for something QEMU reports, such as `SHUTDOWN`.

        Raises:
            MachineDied: it died, or QEMU ended, without it.
            WaitTimeout: it did not come.
        """
        deadline = time.monotonic() + timeout * self._factor
        while True:
            if not self.running:
                deadline = min(deadline, time.monotonic() + _LATE)
            for event in self.events:
                if event.name == name:
                    return event
            self._check()
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        if not self.running:
            raise MachineDied(f"{self.name} ended without {name}", evidence=self.evidence())
        raise WaitTimeout(f"{self.name}: no {name} within {timeout:.0f} s", evidence=self.evidence())

    def wait_off(self, *, timeout: float = 60) -> None:
        """Wait until it has switched itself off.

        Raises:
            MachineDied: it died first, or that is why it is off.
            WaitTimeout: it has not.
        """
        deadline = time.monotonic() + timeout * self._factor
        while self.running:
            self._check()
            if time.monotonic() > deadline:
                raise WaitTimeout(f"{self.name} is still on after {timeout:.0f} s", evidence=self.evidence())
            time.sleep(0.02)
        self.console.check()

    def _check(self) -> None:
        self.console.check()
        self._elsewhere(self.console)

    def timeline(self, kernels: Mapping[str, str]) -> dict[str, float]:
        """Phase to seconds; see `lab.timeline.phases`.

        Raises:
            MisuseError: it did not boot, but was started from a stage.
        """
        if self.stage:
            raise MisuseError(f"{self.name} was started from the stage {self.stage}: it has not booted")
        return phases(self.marks, power_on=self.power_on, kernels=kernels)

    def evidence(self) -> str:
        """What somebody needs to understand a failure, as text."""
        try:
            status = self.qmp_status()
        except InfrastructureError as error:
            status = error.what
        parts = [
            f"machine {self.name}: " + ", ".join(f"{name} {value}" for name, value in self.facts.items()),
            f"QMP status: {status}",
            "QMP events: " + (", ".join(f"{e.name} {e.data}" for e in self.events) or "none"),
            "marks: " + (", ".join(f"{m.step}={m.outcome}@{m.t}" for m in self.marks) or "none"),
            f"QEMU said: {self._qemu_log() or 'nothing'}",
            f"reproduce: {command.reproduce(self.argv)}",
            "last lines on the console:\n" + (self._console.tail() if self._console else "(never started)"),
            *(["last lines on the port:\n" + self._port.tail()] if self._port else []),
        ]
        return "\n".join(parts)

    def _qemu_log(self) -> str:
        path = self.directory / "qemu.log"
        return path.read_text(errors="replace")[-2000:].strip() if path.exists() else ""
