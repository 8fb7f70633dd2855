"""What every machine of the lab can do, a VM and a board alike."""

from typing import Protocol

from lab.console import Console
from lab.shell import Shell


class Machine(Protocol):
    """Anything with power and a console."""

    name: str
    arch: str

    @property
    def console(self) -> Console:
        """Everything it has said since it was switched on, and where to type."""

    def start(self) -> None:
        """Switch it on."""

    def stop(self) -> None:
        """Switch it off, whatever it is doing; nothing of it is left on the host."""

    def shell(self, *, timeout: float = 60) -> Shell:
        """A shell on its console."""
