"""Whose state directory it is, and who signs in it at this moment.

Two artifacts directories must not share keys and releases: what one provider serves would become what the
other one signs.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import msgspec

from phase import files
from phase.foreign import MalformedError, read_json
from phase.release.errors import RepositoryError

_OWNER = "artifacts.json"
#: Seconds to wait for another process that signs in the same state directory.
LOCK_SECONDS = 60.0


class _Owner(msgspec.Struct, frozen=True):
    """Whose state it is: the artifacts directory, without links."""

    artifacts: str


@contextmanager
def owned(state: Path, artifacts: Path) -> Iterator[None]:
    """Keep a second process from signing the same version of something else, and other artifacts out.

    Args:
        state: the state directory; is made where it is missing.
        artifacts: what it belongs to, from the first time on.

    Raises:
        RepositoryError: it belongs to other artifacts, or another process does not leave it.
        OSError: as usual.
    """
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _lock(descriptor, state)
        _claim(state, artifacts)
        yield
    finally:
        os.close(descriptor)


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


def _lock(descriptor: int, state: Path) -> None:
    """Lock a file, or say why not; the kernel takes the lock from a process that dies."""
    until = monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if monotonic() >= until:
                raise RepositoryError(
                    f"another process has been signing in {state} for {LOCK_SECONDS:.0f} s",
                    hint="Wait until it is done, or choose another state directory.",
                ) from error
            sleep(0.05)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                raise
            raise RepositoryError(
                f"the file system of {state} has no locks: {error.strerror}",
                hint="Choose a state directory on a local file system.",
            ) from error


def _same(one: str, other: str) -> bool:
    """Whether two paths are one directory now, as with a bind mount."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
