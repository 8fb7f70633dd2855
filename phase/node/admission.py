"""Who may bring jobs: no client, unless its key is allowed or the node is open on purpose."""

from collections.abc import Iterable
from pathlib import Path

from phase.errors import printable
from phase.node import NodeError
from phase.peer import allowed
from phase.peer.errors import PeerError

#: Most keys that may be allowed.
MAX_KEYS = 10_000


class Admission:
    """Decides who may use a node.

    Args:
        keys: public keys of clients, 64 hex digits.
        anyone: whether everybody may, within quotas.
    """

    def __init__(self, keys: Iterable[str] = (), *, anyone: bool = False) -> None:
        self.keys = frozenset(key.lower() for key in keys)
        self.anyone = anyone

    def refusal(self, key: str) -> str:
        """Why a client may not use this node; empty if it may.

        Args:
            key: which it has proved.
        """
        if self.anyone or key in self.keys:
            return ""
        # The same words for all: they are counted by them.
        return "this node does not allow this key"


def read_keys(given: Iterable[str]) -> frozenset[str]:
    """The keys that a person allows.

    Args:
        given: keys, or files with one on each line; what follows a key, or a `#`, is for people.

    Raises:
        NodeError: it is neither a key nor such a file; says where.
    """
    found: set[str] = set()
    for each in given:
        found |= {each.lower()} if allowed.is_key(each) else _of_file(Path(each))
    if len(found) > MAX_KEYS:
        raise NodeError(f"{len(found)} keys are allowed; the limit is {MAX_KEYS}", hint="Use --open.")
    return frozenset(found)


def _of_file(path: Path) -> frozenset[str]:
    try:
        return allowed.read_keys(path)
    except PeerError as error:
        name = printable(str(path)[:200])
        raise NodeError(
            f"{name} is not a key of 64 hex digits, and not a file of keys: {error.what}",
            hint="`phase init` shows the key of a client.",
        ) from error
