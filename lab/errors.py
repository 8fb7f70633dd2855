"""What can go wrong in a lab, and whose it is.

LabError
+-- InfrastructureError   the host, QEMU, a cable: the only kind that may be tried again
+-- MachineError          the machine panicked, hung, rebooted
|   +-- MachineDied       and said so on its console
|   +-- WaitTimeout       or said nothing in time; carries the transcript
+-- ProductError          the machine lives, and does what it should not
+-- MisuseError           the scenario asks for what cannot be

Standard library only: the doctor raises these before anything is installed.
"""

from typing import ClassVar

from lab.printable import clean


class LabError(Exception):
    """Something failed in the lab.

    Args:
        what: what happened, to which machine.
        evidence: the last lines, the status: what somebody needs to understand it.

    Both come from machines, and go to terminals and reports: without what steers those.
    """

    owner: ClassVar[str] = "infrastructure"

    def __init__(self, what: str, *, evidence: str = "") -> None:
        self.what = clean(what)
        self.evidence = clean(evidence)
        super().__init__(f"{self.what}\n{self.evidence}" if evidence else self.what)


class InfrastructureError(LabError):
    """The host or its tools failed, not what is tested."""


class MachineError(LabError):
    """The machine is in a state it should not be in."""

    owner = "machine"


class MachineDied(MachineError):
    """The machine panicked or ended."""


class WaitTimeout(MachineError):
    """What was waited for did not come in time."""


class ProductError(LabError):
    """The machine works, but the software on it does not."""

    owner = "product"


class MisuseError(LabError):
    """The scenario asks for something impossible."""

    owner = "misuse"
