"""The roles of a repository: for how long they hold, who must sign them."""

from collections.abc import Iterable
from typing import NamedTuple

from tuf.api.metadata import Role, Root

from phase.release.errors import KeysError
from phase.release.keys import NaclSigner, ReleaseKeys

TOP = ("root", "timestamp", "snapshot", "targets")


class Expiry(NamedTuple):
    """For how long each role's signatures hold, days."""

    root: float = 730
    targets: float = 365
    release: float = 180
    snapshot: float = 30
    timestamp: float = 7

    def days(self, role: str) -> float:
        """The days of a role by its name in metadata."""
        found: float = getattr(self, kind(role))
        return found


def kind(role: str) -> str:
    """Whose keys sign a role: its own if it is one of the top four, else `release`."""
    return role if role in TOP else "release"


def root(keys: ReleaseKeys) -> Root:
    """A root that trusts these keys, more than half of each role's."""
    made = Root(consistent_snapshot=True)
    for role in TOP:
        for signer in keys[role]:
            made.add_key(signer.public_key, role)
        made.roles[role].threshold = keys.threshold(role)
    return made


def check_enough(role: str, signers: Iterable[NaclSigner], rule: Role) -> None:
    """Make sure that these signers satisfy a role.

    Raises:
        KeysError: they are too few.
    """
    found = {signer.public_key.keyid for signer in signers} & set(rule.keyids)
    if len(found) < rule.threshold:
        raise KeysError(
            f"{len(found)} of the keys of {role} are at hand, {rule.threshold} must sign",
            hint="Give the directory that holds them.",
        )
