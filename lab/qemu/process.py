"""The process of one QEMU: how it starts, and how it ended."""

import contextlib
import signal
import subprocess
from pathlib import Path

from lab.children import dies_with_us
from lab.errors import InfrastructureError
from lab.qemu.loop import call

#: Seconds in which a QEMU that has closed its console may still run.
_LATE = 1.0


class Process:
    """A running QEMU.

    Args:
        argv: its command line.
        log: the file that its own messages are appended to.

    Raises:
        InfrastructureError: QEMU is not installed.
    """

    def __init__(self, argv: list[str], log: Path) -> None:
        with log.open("ab") as file:
            self._process = call(lambda: _spawn(argv, file.fileno()))

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it lives."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End it at once."""
        if self.running:
            self._process.kill()
        self._process.wait()

    def killed(self) -> str:
        """What ended it, if that was neither its machine nor `stop`; empty while it runs, too."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            # Its console closes a moment before it has ended.
            self._process.wait(timeout=_LATE)
        code = self._process.returncode
        if not code:
            return ""
        # A shell around QEMU turns a signal into a number above 128.
        number = -code if code < 0 else code - 128
        if number in {each.value for each in signal.Signals}:
            return f"QEMU was killed by {signal.Signals(number).name}"
        return f"QEMU exited with code {code}"


def _spawn(argv: list[str], log: int) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C is for the test runner, which then stops its machines in order.
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=dies_with_us(),
        )
    except FileNotFoundError as error:
        raise InfrastructureError(f"{argv[0]} is not installed; `python3 -m lab doctor` says how") from error
