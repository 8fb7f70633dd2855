"""What stops a report."""


class ReportError(Exception):
    """The report could not be made.

    Args:
        what: what failed.
        hint: what to do about it.
    """

    def __init__(self, what: str, *, hint: str = "") -> None:
        self.what = what
        self.hint = hint
        super().__init__(f"{what.rstrip('.')}. {hint}" if hint else what)
