"""The state of a repository's signatures: who must sign which role, and until when."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from phase.release import roles
from phase.release.lifetimes import Expiry
from phase.release.manifest import split_role
from phase.release.tree import Tree


class State(StrEnum):
    """How much of its usual time a role's signature has left."""

    #: Half of it, or more.
    HOLDS = "holds"
    #: Less than half: `renew` and `refresh` sign it anew.
    DUE = "due"
    #: Less than a quarter: a person must act.
    ENDS = "ends"
    #: None of it: every machine refuses the role.
    EXPIRED = "expired"


#: States in which a person must act.
URGENT = (State.ENDS, State.EXPIRED)


class RoleStatus(NamedTuple):
    """One published role.

    Attributes:
        role: its name in metadata.
        version: of the role.
        release: the version for people; empty for a role that is not a release.
        expires: when the signature ends, UTC.
        renew_by: when a quarter of its usual time is left, UTC.
        state: at the given time.
        threshold: how many must sign.
        keys: public keys that can sign, hex.
    """

    role: str
    version: int
    release: str
    expires: datetime
    renew_by: datetime
    state: State
    threshold: int
    keys: tuple[str, ...]


def published(repository: Tree, now: datetime, expiry: Expiry | None = None) -> list[RoleStatus]:
    """Every published role, top-level roles first.

    Args:
        repository: opened.
        now: the time, UTC.
        expiry: the usual times.
    """
    usual = expiry or Expiry()
    found = []
    for role, signed in repository.published().items():
        days = roles.lifetime(role, signed, usual)
        release = "" if role in roles.TOP else repository.manifest(*split_role(role)).release
        found.append(
            RoleStatus(
                role,
                signed.version,
                release,
                signed.expires,
                signed.expires - timedelta(days=days / 4),
                _state(signed.expires, days, now),
                repository.rule(role).threshold,
                tuple(repository.publics(role)),
            )
        )
    return found


def _state(expires: datetime, days: float, now: datetime) -> State:
    left = (expires - now) / timedelta(days=days)
    if left <= 0:
        return State.EXPIRED
    return State.ENDS if left < 1 / 4 else State.DUE if left < 1 / 2 else State.HOLDS
