"""Binds a state directory to one artifacts directory, and to one signing process at a time.

Two artifacts directories must not share keys and releases: one provider would serve what the other one
signs.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from phase import files
from phase.foreign import MalformedError, read_json
from phase.release import lock
from phase.release.errors import RepositoryError

_OWNER = "artifacts.json"
_log = logging.getLogger(__name__)


class _Owner(msgspec.Struct, frozen=True):
    """The artifacts directory that owns the state, without links."""

    artifacts: str


@contextmanager
def owned(state: Path, artifacts: Path) -> Iterator[None]:
    """Keep out a second process, which could sign the same version with other content, and other artifacts.

    Args:
        state: the state directory; created if it does not exist.
        artifacts: the artifacts directory that owns it, from the first time on.

    Raises:
        RepositoryError: it belongs to other artifacts, or another process does not release it.
        OSError: the state directory cannot be used.
    """
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with lock.held(state / "lock", _log.info):
        _claim(state, artifacts)
        yield


def _claim(state: Path, artifacts: Path) -> None:
    path, own = state / _OWNER, str(artifacts.resolve())
    try:
        owner = read_json(path.read_bytes(), _Owner).artifacts
    except FileNotFoundError:
        files.write(path, msgspec.json.encode(_Owner(own)), mode=0o600)
        return
    except MalformedError as error:
        raise RepositoryError(
            f"{path} is damaged: {error}", hint=f"Remove it, if {state} belongs to {own}."
        ) from error
    if owner != own and not _same(owner, own):
        raise RepositoryError(
            f"the state directory {state} belongs to the artifacts in {owner}, not to {own}",
            hint=f"Give these a --state of their own; or, if {owner} was moved to {own}, remove {path}.",
        )


def _same(one: str, other: str) -> bool:
    """Whether two paths lead to one directory now, as with a bind mount."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
