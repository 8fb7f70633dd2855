"""What every machine of the lab can do, a VM and a board alike."""

from collections.abc import Collection, Mapping
from typing import Literal, Protocol

from lab.console import SILENCE, Console
from lab.errors import ProductError
from lab.marks import Mark
from lab.shell import Login, Shell

#: What a scenario may ask of a machine. Every machine has power and a console.
Capability = Literal["power", "console", "network", "monitor", "disk image", "clone"]


class Machine(Protocol):
    """Anything with power and a console."""

    @property
    def name(self) -> str:
        """Unique in its topology."""

    @property
    def arch(self) -> str:
        """`x86_64` or `arm64`."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it can do; a scenario that needs more does not run on it."""

    @property
    def facts(self) -> Mapping[str, str]:
        """What it is made of, for reports."""

    @property
    def console(self) -> Console:
        """Everything it has said since it was switched on, and where to type."""

    @property
    def append(self) -> str:
        """Its kernel's command line; empty when its firmware finds one by itself."""

    @property
    def segments(self) -> Collection[str]:
        """The segments its cards are plugged into, in order."""

    @property
    def power_on(self) -> float:
        """`time.monotonic()` when it was last switched on; 0 before."""

    @property
    def running(self) -> bool:
        """Whether it is on."""

    @property
    def marks(self) -> list[Mark]:
        """The boot marks it has printed since it was switched on."""

    def start(self) -> None:
        """Switch it on."""

    def stop(self) -> None:
        """Switch it off, whatever it is doing; nothing of it is left on the host."""

    def shell(self, *, timeout: float = 60, login: Login | None = None) -> Shell:
        """A shell on its console; `login` is user and password, for a machine that asks for them."""

    def wait_mark(
        self, step: str, *, outcome: str = "ok", timeout: float = 60, quiet: float = SILENCE
    ) -> Mark:
        """Wait for a step of its boot to end."""

    def timeline(self, kernels: Mapping[str, str]) -> dict[str, float]:
        """How long each phase of its boot took, in seconds."""

    def evidence(self) -> str:
        """What somebody needs to understand a failure, as text."""


def wait_mark(machine: Machine, step: str, *, outcome: str, timeout: float, quiet: float) -> Mark:
    """Wait for a step of a machine's boot to end.

    Args:
        machine: that is on.
        step: its name.
        outcome: how it must end.
        timeout: seconds.
        quiet: seconds after which a machine that says nothing at all counts as dead.

    Raises:
        ProductError: it ended otherwise, or the machine gave up at another step.
        MachineDied: the machine died first.
        WaitTimeout: neither came.
    """

    def found() -> Mark | None:
        for mark in machine.console.marks:
            if mark.step == step and mark.outcome == outcome:
                return mark
            if mark.facts.get("final") or (outcome == "ok" and mark.outcome in ("failed", "refused")):
                return mark
        return None

    mark = machine.console.wait(found, f"mark {step}", timeout=timeout, quiet=quiet)
    if mark.step != step or mark.outcome != outcome:
        raise ProductError(
            f"{machine.name}: {mark.step} {mark.outcome}: {mark.facts.get('reason', '')}",
            evidence=machine.evidence(),
        )
    return mark
