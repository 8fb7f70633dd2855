"""What can go wrong while telling machines what to boot."""

from phase.errors import PhaseError


class NetbootError(PhaseError):
    """Machines cannot be told what to boot."""
