"""The root of all errors that Phase raises on purpose.

Each package derives its own root from `PhaseError`:

    PhaseError
    +-- ReleaseError, TrustError      signing a release, and verifying it
    +-- DiscoveryError, FetchError    finding providers, and getting files from them
    +-- BootError                     starting a release
    +-- MirrorError                   keeping what a publisher has
    +-- ProviderError, JobError       serving releases, and running jobs
    +-- NetbootError                  telling machines what to boot
    +-- PeerError                     talking to other nodes
"""


def printable(text: str) -> str:
    """A text from anywhere as one line that cannot control a terminal or imitate another line."""
    return "".join(c if c.isprintable() else " " for c in text)


def reason(error: OSError) -> str:
    """Why a system call failed, in the system's words."""
    return error.strerror or str(error) or type(error).__name__


def unreadable(what: object, error: OSError) -> str:
    """The message for a file that cannot be read.

    Args:
        what: the file, as people know it.
        error: why.
    """
    return f"{what} cannot be read: {reason(error)}"


class PhaseError(Exception):
    """Something failed, and the person reading can do something about it.

    Args:
        what: what happened, and to what; with expected and found values if there are any.
        hint: what to try next; left out if nothing helps.
    """

    def __init__(self, what: str, *, hint: str = "") -> None:
        self.what = what
        self.hint = hint
        plain = what.rstrip(".")
        end = "" if plain.endswith("?") else "."
        super().__init__(f"{plain}{end} {hint}" if hint else what)
