"""For how long signatures hold. Cheap to import, since a provider warns before they end."""

from typing import NamedTuple

#: Field of a release's facts: seconds for which a renewed signature holds, in place of the usual time.
FIELD = "lifetime"
_DAY = 86_400
_LONGEST = 3650 * _DAY


class Expiry(NamedTuple):
    """For how long each role's signatures hold, days."""

    root: float = 730
    targets: float = 365
    release: float = 180
    snapshot: float = 30
    timestamp: float = 7


def days(role: str, own: object, usual: Expiry | None = None) -> float:
    """For how long a role's signature holds when it is made, days.

    Args:
        role: its name in metadata.
        own: value of `FIELD` in a release; a value that is not a number of seconds is ignored.
        usual: the usual times.
    """
    if type(own) is int and 0 < own <= _LONGEST:
        return own / _DAY
    found: float = getattr(usual or Expiry(), role if role in Expiry._fields else "release")
    return found


def renew_by(expires: float, role: str, own: object) -> float:
    """The moment when a quarter of the usual time is left and a person must act, Unix seconds.

    Args:
        expires: when the signature ends, Unix seconds.
        role: its name in metadata.
        own: as for `days`.
    """
    return expires - days(role, own) * _DAY / 4
