"""The error of an image build."""


class BuildError(Exception):
    """A build failed. The cache keeps no part of it.

    Args:
        what: what failed, with the last lines of the tool if there are any.
        hint: what to do about it.
    """

    def __init__(self, what: str, *, hint: str = "") -> None:
        self.what = what
        self.hint = hint
        super().__init__(f"{what.rstrip('.')}. {hint}" if hint else what)
