"""The root of every error Phase raises on purpose.

Each package derives its own root from `PhaseError`:

    PhaseError
    +-- ReleaseError, TrustError      what was signed, and whether to believe it
    +-- DiscoveryError, FetchError    who has it, and getting it
    +-- BootError                     turning it into a running system
    +-- ProviderError, JobError       serving it, and working
"""


def printable(text: str) -> str:
    """A text that may come from the network, in one line that cannot steer a terminal or imitate another."""
    return "".join(c if c.isprintable() else " " for c in text)


class PhaseError(Exception):
    """Something failed, and the person reading can do something about it.

    Args:
        what: what happened, to what; expected and found where there is both.
        hint: what to try next; left out where nothing helps.
    """

    def __init__(self, what: str, *, hint: str = "") -> None:
        self.what = what
        self.hint = hint
        super().__init__(f"{what.rstrip('.')}. {hint}" if hint else what)
