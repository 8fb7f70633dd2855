"""A repository on disk, verified as a client would: signatures, expiry, versions, every byte."""

import os
from collections.abc import Callable
from datetime import datetime
from hashlib import file_digest
from pathlib import Path

from phase import files
from phase.release import blobs
from phase.release.errors import RepositoryError
from phase.trust import Floor, NotFoundError, Policy, Refreshed, TrustedState, refresh


def verify(
    directory: Path, root: bytes, *, channel: str, arch: str, now: datetime, floor: Floor | None = None
) -> Refreshed:
    """Verify one release of a repository, or of a part of one.

    Args:
        directory: holds `metadata` and `blobs`.
        root: the trusted root.
        channel: which release.
        arch: `x86_64` or `arm64`.
        now: the time, UTC.
        floor: what earlier refreshes have seen.

    Returns:
        What a client would believe.

    Raises:
        TrustError: the metadata is refused.
        RepositoryError: a file is missing, or is not the one that was signed.
    """
    found = refresh(root, _reader(directory), channel=channel, arch=arch, now=now, floor=floor)
    for name, artifact in sorted(found.manifest.artifacts.items()):
        path = directory / blobs.PLACE / artifact.sha256
        try:
            with open(files.open_plain(path), "rb") as handle:
                length = os.fstat(handle.fileno()).st_size
                if length != artifact.length:
                    raise RepositoryError(
                        f"{name}: {path} is not the signed file: it has {length} bytes, "
                        f"signed are {artifact.length}",
                        hint="Fetch or publish it again.",
                    )
                digest = file_digest(handle, "sha256").hexdigest()
        except OSError as error:
            raise RepositoryError(f"{name}: {path} cannot be read: {error.strerror}") from error
        if digest != artifact.sha256:
            raise RepositoryError(
                f"{name}: {path} is not the signed file: expected sha256 {artifact.sha256}, found {digest}",
                hint="Fetch or publish it again.",
            )
    return found


def newest(directory: Path, root: bytes, *, now: datetime) -> Floor:
    """What a client would remember of a repository, whichever of its releases it asked for.

    Args:
        directory: holds `metadata`.
        root: the trusted root.
        now: the time, UTC.

    Raises:
        TrustError: the metadata is refused.
        RepositoryError: a file cannot be read.
    """
    get, limits = _reader(directory), Policy()
    state = TrustedState(root, now=now)
    try:
        while True:
            state.update_root(get(f"{state.root.version + 1}.root.json", limits.max_root))
    except NotFoundError:
        state.update_timestamp(get("timestamp.json", limits.max_timestamp))
    pin = state.snapshot_pin
    state.update_snapshot(get(f"{pin.version}.snapshot.json", limits.max_snapshot))
    return state.new_floor()


def _reader(directory: Path) -> Callable[[str, int], bytes]:
    metadata = directory / "metadata"

    def get(name: str, max_bytes: int) -> bytes:
        try:
            with open(files.open_plain(metadata / name), "rb") as handle:
                return handle.read(max_bytes + 1)
        except FileNotFoundError:
            raise NotFoundError(f"{metadata} has no {name}") from None
        except OSError as error:
            raise RepositoryError(f"{metadata / name} cannot be read: {error.strerror}") from error

    return get
