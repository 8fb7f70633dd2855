"""What follows a failed attempt to boot: another one, what is kept on the disk, or giving up.

One function, which knows no machine: the seed tells it how things stand and does what it says.
"""

from typing import NamedTuple

#: Seconds before a machine restarts after a boot that failed; and where a restart alone changes nothing.
RESTART, RESTART_LASTING = 10, 600
#: Seconds between two attempts, at most.
MAX_PAUSE = 30.0
#: Seconds to look for more providers once one was found: by the search. The first is for the usual case,
#: where the first is a good one; later there was a reason to look again.
GATHER = (0.1, 1.0, 5.0)


class Standing(NamedTuple):
    """How things stand when an attempt has failed.

    Attributes:
        attempts: that have failed, this one counted in.
        left: seconds until the time is up.
        connected: whether this machine has an address.
        searches: how often providers were looked for; `len(GATHER)` when no more will help.
        kept: whether a release is on the disk that this image lets boot without a provider.
        lasting: whether another attempt on this machine must fail for the same reason.
    """

    attempts: int
    left: float
    connected: bool
    searches: int
    kept: bool
    lasting: bool = False


class Decision(NamedTuple):
    """What to do, in this order.

    Attributes:
        boot_kept: try the release on the disk.
        pause: then wait so many seconds and try again; None: give up.
    """

    boot_kept: bool
    pause: float | None


def decide(standing: Standing) -> Decision:
    """Say what follows a failed attempt."""
    pause = min(2.0 ** min(standing.attempts, 8), MAX_PAUSE)
    over = standing.lasting or pause >= standing.left
    # Not for a provider that lies: of those that do not, the first search may have missed some.
    alone = over or not standing.connected or standing.searches >= len(GATHER)
    return Decision(alone and standing.kept, None if over else pause)
