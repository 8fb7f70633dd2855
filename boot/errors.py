"""What an image build says when it cannot go on."""


class BuildError(Exception):
    """A build stopped. Nothing half-made is left in the cache.

    Args:
        what: what failed, with the tool's own last words where there are any.
        hint: what to do about it.
    """

    def __init__(self, what: str, *, hint: str = "") -> None:
        self.what = what
        self.hint = hint
        super().__init__(f"{what.rstrip('.')}. {hint}" if hint else what)
