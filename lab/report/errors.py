"""What stops a report."""

from lab.errors import LabError


class ReportError(LabError):
    """The report could not be made.

    Args:
        what: what failed.
        hint: what to do about it.
    """

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(f"{what.rstrip('.')}. {hint}" if hint else what)
