"""Why no release came: kept by provider, told once, and summed up when the boot gives up."""

from collections.abc import Sequence

from phase import marks, trust
from phase.errors import PhaseError
from phase.fetch.errors import ProtocolError, ProviderFailedError, StalledError, VerificationError

#: Providers whose reasons are kept, and told when the boot gives up.
MAX_KEPT = 64
_MAX_TOLD = 5
#: Characters of one reason: three lines of a screen.
_MAX_LINE = 240


class Reasons:
    """The last reason of each provider.

    Args:
        named: providers that the person at this machine named; more likely than others to be the right ones.
    """

    def __init__(self, named: Sequence[str]) -> None:
        self._named = named
        self._last: dict[str, PhaseError] = {}

    def note(self, url: str, error: PhaseError) -> str:
        """Remember why a provider was of no use.

        Returns:
            A line for people; empty where the same was told before.
        """
        before = self._last.pop(url, None)
        if before is not None and _is_late(error) and not _is_late(before):
            # How little time was left says less than what was found out with more of it.
            error = before
        if len(self._last) >= MAX_KEPT:
            del self._last[next(iter(self._last))]
        self._last[url] = error
        line = told(url, error)
        return "" if before is not None and told(url, before) == line else line

    def summary(self) -> list[str]:
        """One line for each provider, the likeliest cause first.

        One that the person named comes before others. Of the rest, one that has answered comes first: it is
        there, and what it serves is wrong; one that does not answer may not exist.
        """
        order = sorted(self._last.items(), key=lambda each: (each[0] not in self._named, _kind(each[1])))
        lines = [told(url, error) for url, error in order[:_MAX_TOLD]]
        if len(order) > _MAX_TOLD:
            lines.append(f"and {len(order) - _MAX_TOLD} more providers")
        return lines


def told(url: str, error: PhaseError) -> str:
    """One provider's reason as a short line that names it once."""
    cause = _cause(error)
    return marks.printable(f"{url}: {str(cause).removeprefix(f'{url}: ')}", _MAX_LINE)


def _cause(error: PhaseError) -> PhaseError:
    """What happened: what a client of one provider raises names the file that was asked for."""
    return error.__cause__ if isinstance(error.__cause__, ProviderFailedError) else error


def _is_late(error: PhaseError) -> bool:
    return isinstance(_cause(error), StalledError)


def _kind(error: PhaseError) -> int:
    cause = _cause(error)
    for rank, kind in enumerate((trust.TrustError | VerificationError, ProtocolError)):
        if isinstance(error, kind) or isinstance(cause, kind):
            return rank
    return 2


def following(rescue: str, seconds: int, *, shell: bool) -> str:
    """What happens after a boot has given up, for people.

    Args:
        rescue: `shell`, `reboot` or `poweroff`.
        seconds: until then.
        shell: whether this image allows one.
    """
    if rescue == "shell" and shell:
        return "next: a shell on this console; `reboot -f` there tries again"
    why = " (this image allows no shell)" if rescue == "shell" else ""
    what = "switches itself off" if rescue == "poweroff" else "restarts and tries again"
    return f"next: this machine {what} in {seconds} s{why}"
