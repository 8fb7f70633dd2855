"""Who may bring jobs: no client, unless its key is allowed or the node is open on purpose."""

import re
from collections.abc import Iterable
from pathlib import Path

from phase.errors import printable, reason
from phase.node import NodeError
from phase.peer.messages import Reason

#: Most keys that may be allowed, and most bytes of a file of them.
MAX_KEYS = 10_000
_MAX_FILE = 4 << 20
_KEY = re.compile("[0-9a-fA-F]{64}")


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
        return f"{Reason.NOT_AUTHORISED.value}: this node does not allow this key"


def read_keys(given: Iterable[str]) -> frozenset[str]:
    """The keys that a person allows.

    Args:
        given: keys, or files with one on each line; what follows a key, or a `#`, is for people.

    Raises:
        NodeError: it is neither a key nor such a file; says where.
    """
    found: set[str] = set()
    for each in given:
        found |= {each.lower()} if _KEY.fullmatch(each) else _of_file(Path(each))
    if len(found) > MAX_KEYS:
        raise NodeError(f"{len(found)} keys are allowed; the limit is {MAX_KEYS}", hint="Use --open.")
    return frozenset(found)


def _of_file(path: Path) -> set[str]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise NodeError(
            f"{printable(str(path)[:200])} is not a key of 64 hex digits, and as a file it cannot be read: "
            f"{reason(error)}"
        ) from error
    if len(data) > _MAX_FILE:
        raise NodeError(f"{path} is too long for a file of keys; the limit is {_MAX_FILE} bytes")
    found: set[str] = set()
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        word = line.split("#", 1)[0].split()
        if word and not _KEY.fullmatch(word[0]):
            raise NodeError(
                f"{path}, line {number}: {printable(word[0][:80])!r} is not a key of 64 hex digits",
                hint="`phase init` shows the key of a client.",
            )
        found |= {word[0].lower()} if word else set()
    return found
