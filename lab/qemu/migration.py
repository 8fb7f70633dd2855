"""Keeping the state of a machine's devices in a file, and loading it; its memory is a file already.

Both ends are told to leave shared memory alone. The one that loads maps its memory privately, so what it
writes is its own and the file stays as it is.
"""

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from lab.errors import InfrastructureError

_IGNORE_SHARED = [{"capability": "x-ignore-shared", "state": True}]
#: Seconds; a state is less than a megabyte.
_SAVE = 60


class Execute(Protocol):
    """Runs a QMP command: `lab.qemu.vm.VM.qmp`."""

    def __call__(self, name: str, **arguments: object) -> Any:
        """Run it; returns its answer."""


def save(qmp: Execute, state: Path) -> None:
    """Write the state of a machine that stands still.

    Raises:
        InfrastructureError: QEMU cannot; it says why.
    """
    qmp("migrate-set-capabilities", capabilities=_IGNORE_SHARED)
    qmp("migrate", uri=f"exec:cat >{shlex.quote(str(state))}")
    _wait(lambda: qmp("query-migrate"), "keep its state", _SAVE)


def load(qmp: Execute, state: Path, *, timeout: float) -> None:
    """Read a state into a machine that waits for it.

    Args:
        qmp: of that machine.
        state: the file.
        timeout: seconds.

    Raises:
        InfrastructureError: QEMU does not take it.
    """
    qmp("migrate-set-capabilities", capabilities=_IGNORE_SHARED)
    # Not `file:`, which QEMU 7.2 does not have.
    qmp("migrate-incoming", uri=f"exec:cat {shlex.quote(str(state))}")
    _wait(lambda: qmp("query-migrate"), "take a kept state", timeout)


def _wait(query: Callable[[], Any], what: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        answer = query()
        status = answer.get("status", "none")
        if status == "completed":
            return
        if status in ("failed", "cancelled") or time.monotonic() > deadline:
            why = answer.get("error-desc", f"it is {status} after {timeout:.0f} s")
            raise InfrastructureError(f"the machine does not {what}: {why}")
        time.sleep(0.002)
