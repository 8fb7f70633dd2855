"""A virtual machine."""

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from lab.console import Console
from lab.errors import InfrastructureError, MachineDied, MisuseError, ProductError, WaitTimeout
from lab.marks import Mark
from lab.net.switch import Switch
from lab.qemu import command
from lab.qemu.loop import call
from lab.qemu.monitor import Event, Monitor
from lab.shell import Shell
from lab.timeline import phases

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class VM:
    """A QEMU virtual machine; the `lab` fixture makes them.

    Args:
        spec: what it is made of.
        segments: where its cards are plugged in, by card.
        directory: for its sockets, log and console; removed by whoever made it.
        factor: timeouts are multiplied by this.
    """

    def __init__(
        self, spec: command.Spec, segments: Mapping[str, Switch], directory: Path, *, factor: float = 1.0
    ) -> None:
        self.spec = spec
        self.name = spec.name
        self.arch = spec.arch
        self.segments = segments
        self.directory = directory
        self.power_on = 0.0
        self._factor = factor
        self._console: Console | None = None
        self._monitor = Monitor(spec.name, directory / "qmp")
        self._process: subprocess.Popen[bytes] | None = None
        self.argv = command.argv(spec, console=directory / "console", qmp=directory / "qmp")

    @property
    def console(self) -> Console:
        """Its serial console, read since it was switched on."""
        if self._console is None:
            raise MisuseError(f"{self.name} has not been started")
        return self._console

    @property
    def marks(self) -> list[Mark]:
        """The boot marks it has printed."""
        return list(self._console.marks) if self._console else []

    @property
    def events(self) -> list[Event]:
        """What QEMU has reported of it."""
        return list(self._monitor.events)

    def start(self) -> None:
        """Switch it on.

        Raises:
            InfrastructureError: QEMU did not start; its own message is in the evidence.
        """
        if self._process is not None:
            raise MisuseError(f"{self.name} is running already")
        path = self.directory / "console"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(path))
            listener.listen(1)
            listener.settimeout(20 * self._factor)
            self._monitor.listen()
            self.power_on = time.monotonic()
            with (self.directory / "qemu.log").open("wb") as log:
                self._process = call(lambda: _spawn(self.argv, log.fileno()))
            try:
                stream, _ = listener.accept()
            except TimeoutError as error:
                raise InfrastructureError(
                    f"{self.name}: QEMU did not start", evidence=self._qemu_log()
                ) from error
            finally:
                path.unlink()
        stream.settimeout(None)
        self._console = Console(self.name, stream, self.directory / "console.log")
        self._monitor.accept(timeout=20 * self._factor)

    def stop(self) -> None:
        """Switch it off at once. Safe to call at any time, any number of times."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._monitor.close()
        if self._console is not None:
            self._console.close()
        self._process = None

    @property
    def running(self) -> bool:
        """Whether QEMU lives."""
        return self._process is not None and self._process.poll() is None

    def shell(self, *, timeout: float = 60) -> Shell:
        """A shell on the serial console."""
        return Shell(self.console, timeout=timeout * self._factor)

    def qmp(self, name: str, **arguments: object) -> object:
        """Run a QMP command."""
        return self._monitor.execute(name, **arguments)

    def wait_mark(self, step: str, *, outcome: str = "ok", timeout: float = 60) -> Mark:
        """Wait for a step to end.

        Args:
            step: its name.
            outcome: how it must end.
            timeout: seconds on a host of ordinary speed.

        Raises:
            ProductError: it ended otherwise, or the machine gave up at another step.
            MachineDied: the machine died first.
            WaitTimeout: neither came.
        """

        def found() -> object:
            for mark in self.console.marks:
                if mark.step == step and mark.outcome == outcome:
                    return mark
                if mark.facts.get("final") or (outcome == "ok" and mark.outcome in ("failed", "refused")):
                    return mark
            return None

        mark = self.console.wait(found, f"mark {step}", timeout=timeout * self._factor)
        assert isinstance(mark, Mark)
        if mark.step != step or mark.outcome != outcome:
            raise ProductError(
                f"{self.name}: {mark.step} {mark.outcome}: {mark.facts.get('reason', '')}",
                evidence=self.evidence(),
            )
        return mark

    def wait_event(self, name: str, *, timeout: float = 60) -> Event:
        """Wait for something QEMU reports, such as `SHUTDOWN`."""
        deadline = time.monotonic() + timeout * self._factor
        while time.monotonic() < deadline:
            for event in self.events:
                if event.name == name:
                    return event
            if not self.running:
                raise MachineDied(f"{self.name} ended without {name}", evidence=self.evidence())
            time.sleep(0.05)
        raise WaitTimeout(f"{self.name}: no {name} within {timeout:.0f} s", evidence=self.evidence())

    def timeline(self, kernels: dict[str, str]) -> dict[str, float]:
        """Phase to seconds; see `lab.timeline.phases`."""
        return phases(self.marks, power_on=self.power_on, kernels=kernels)

    def evidence(self) -> str:
        """What somebody needs to understand a failure, as text."""
        status: object = "not running"
        if self.running:
            try:
                status = self.qmp("query-status")
            except InfrastructureError as error:
                status = error.what
        parts = [
            f"machine {self.name} ({self.arch}, {self.spec.memory} MiB)",
            f"QMP status: {status}",
            "QMP events: " + (", ".join(f"{e.name} {e.data}" for e in self.events) or "none"),
            "marks: " + (", ".join(f"{m.step}={m.outcome}@{m.t}" for m in self.marks) or "none"),
            f"QEMU said: {self._qemu_log() or 'nothing'}",
            f"reproduce: {command.reproduce(self.argv)}",
            "last lines on the console:\n" + (self._console.tail() if self._console else "(never started)"),
        ]
        return "\n".join(parts)

    def _qemu_log(self) -> str:
        path = self.directory / "qemu.log"
        return path.read_text(errors="replace")[-2000:].strip() if path.exists() else ""


def _spawn(argv: list[str], log: int) -> subprocess.Popen[bytes]:
    parent = os.getpid()

    def before_exec() -> None:
        # When this process is killed, so is the machine: no handler could do it after SIGKILL.
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    # A session of its own: Ctrl-C is for the test runner, which then stops its machines in order.
    try:
        return subprocess.Popen(  # noqa: PLW1509
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=before_exec,
        )
    except FileNotFoundError as error:
        raise InfrastructureError(f"{argv[0]} is not installed; `python3 -m lab doctor` says how") from error
