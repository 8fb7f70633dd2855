"""Verifies a repository on disk as a client would: signatures, expiry, versions, every byte."""

import os
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from tuf.api.metadata import Targets

from phase import files
from phase.errors import unreadable
from phase.release import blobs
from phase.release.errors import RepositoryError
from phase.release.manifest import Artifact, Manifest
from phase.release.roles import TOP
from phase.release.tree import AnyRole
from phase.trust import Floor, NotFoundError, Policy, Refreshed, TrustedState, TrustError, refresh

#: A time at which nothing has expired.
_BEFORE_ALL = datetime.fromtimestamp(0, UTC)


def verify(
    directory: Path,
    root: bytes,
    *,
    channel: str,
    arch: str,
    now: datetime,
    floor: Floor | None = None,
    others: Sequence[Floor] = (),
) -> Refreshed:
    """Verify one release of a repository, or of a part of one.

    Args:
        directory: holds `metadata` and `blobs`.
        root: the trusted root.
        channel: of the release.
        arch: `x86_64` or `arm64`.
        now: the time, UTC.
        floor: from earlier refreshes.
        others: floors that other places remember.

    Returns:
        The result that a client would get.

    Raises:
        TrustError: the metadata is refused.
        RepositoryError: a file is missing, or is not the one that was signed.
    """
    found = refresh(root, reader(directory), channel=channel, arch=arch, now=now, floor=floor, others=others)
    verify_blobs(directory, found.manifest)
    return found


def verify_blobs(
    directory: Path, manifest: Manifest, known: AbstractSet[tuple[str, str]] = frozenset()
) -> set[tuple[str, str]]:
    """Verify the files of one release: the hash that names each, and the chunks that machines verify.

    Args:
        directory: holds `blobs`.
        manifest: of the release.
        known: SHA-256 of the whole, and of length and chunks (hex), of files that have just been verified:
            two roles may name one file and describe different chunks.

    Returns:
        The same, with the files of this release.

    Raises:
        RepositoryError: a file is missing, or is not the one that was signed.
    """
    verified = set(known)
    for name, artifact in sorted(manifest.artifacts.items()):
        if (artifact.sha256, artifact.content) in verified:
            continue
        path = directory / blobs.PLACE / artifact.sha256
        try:
            with open(files.open_plain(path), "rb") as handle:
                _verify_blob(name, path, artifact, handle)
        except OSError as error:
            raise RepositoryError(unreadable(f"{name}: {path}", error)) from error
        verified.add((artifact.sha256, artifact.content))
    return verified


def _verify_blob(name: str, path: Path, artifact: Artifact, handle: BinaryIO) -> None:
    length = os.fstat(handle.fileno()).st_size
    if length != artifact.length:
        raise RepositoryError(
            f"{name}: {path} is not the signed file: it has {length} bytes, signed are {artifact.length}",
            hint="Fetch or publish it again.",
        )
    whole, wrong = sha256(), 0
    for expected, (start, end) in zip(artifact.chunks, pairwise(artifact.starts), strict=True):
        block = handle.read(end - start)
        whole.update(block)
        wrong += sha256(block).hexdigest() != expected
    if whole.hexdigest() != artifact.sha256:
        raise RepositoryError(
            f"{name}: {path} is not the signed file: expected sha256 {artifact.sha256}, "
            f"found {whole.hexdigest()}",
            hint="Fetch or publish it again.",
        )
    if wrong:
        raise RepositoryError(
            f"{name}: {wrong} of {len(artifact.chunks)} chunks are signed with another hash than they have "
            f"in {path}: no machine takes it",
            hint="Add the release again.",
        )


class Judged(NamedTuple):
    """A repository from the view of a machine that asks for each of its releases.

    Attributes:
        signed: role to the signed part of its metadata.
        files: role to its bytes.
        floor: the floor that the machine would remember.
        absent: roles without metadata here, as in a part of a repository that a machine serves.
    """

    signed: dict[str, AnyRole]
    files: dict[str, bytes]
    floor: Floor
    absent: tuple[str, ...]

    def manifests(self) -> list[Manifest]:
        """Every release whose metadata is here."""
        return [
            Manifest.from_role(role, cast("Targets", signed))
            for role, signed in self.signed.items()
            if role not in TOP
        ]

    def expired(self, now: datetime) -> set[str]:
        """The roles whose signature has expired."""
        return {role for role, signed in self.signed.items() if signed.is_expired(now)}


def judge(get: Callable[[str, int], bytes], root: bytes, *, floors: Sequence[Floor] = ()) -> Judged:
    """Verify every role as a machine would, expiry apart.

    Args:
        get: gets a metadata file by its name, with a limit in bytes; raises `NotFoundError`.
        root: the trusted root.
        floors: from earlier refreshes.

    Raises:
        TrustError: a machine would refuse it.
        RepositoryError: a file cannot be read.
    """
    limits = Policy()
    state = TrustedState(root, now=_BEFORE_ALL, others=floors)
    found = Judged({}, {}, Floor(), ())
    newest = _follow(state, get, root)

    def take(role: str, name: str, limit: int, update: Callable[[bytes], AnyRole]) -> None:
        found.files[role] = get(name, limit)
        found.signed[role] = update(found.files[role])

    found.files["root"], found.signed["root"] = newest, state.root
    take("timestamp", "timestamp.json", limits.max_timestamp, state.update_timestamp)
    take(
        "snapshot", f"{state.snapshot_pin.version}.snapshot.json", limits.max_snapshot, state.update_snapshot
    )
    version = state.meta_pin("targets").version
    take("targets", f"{version}.targets.json", limits.max_targets, state.update_targets)
    targets, absent = found.signed["targets"], []
    delegations = targets.delegations if isinstance(targets, Targets) else None
    for role in (delegations.roles or {}) if delegations else ():
        name = f"{state.meta_pin(role).version}.{role}.json"
        try:
            take(role, name, limits.max_targets, partial(state.update_delegated, role))
        except NotFoundError:
            absent.append(role)
            continue
        for artifact in Manifest.from_role(role, cast("Targets", found.signed[role])).artifacts.values():
            state.check_path(role, artifact.path)
    return found._replace(floor=state.new_floor(), absent=tuple(sorted(absent)))


def judge_backup(get: Callable[[str, int], bytes], root: bytes) -> Judged:
    """Verify a repository from a backup, which may have newer roots than the rest of its metadata.

    Args:
        get: as for `judge`.
        root: the trusted root.

    Returns:
        The newest root; and the other roles, judged by the newest root under which they verify.

    Raises:
        TrustError: it verifies under none of the roots.
        RepositoryError: a file cannot be read.
    """
    state = TrustedState(root, now=_BEFORE_ALL)
    newest = _follow(state, get, root)
    for last in range(state.root.version, 0, -1):

        def until(name: str, limit: int, last: int = last) -> bytes:
            if name == f"{last + 1}.root.json":
                raise NotFoundError(name)
            return get(name, limit)

        try:
            found = judge(until, root)
        except TrustError:
            if last == 1:
                raise
            continue
        return found._replace(
            signed=found.signed | {"root": state.root}, files=found.files | {"root": newest}
        )
    raise RuntimeError("there is a first root")


def _follow(state: TrustedState, get: Callable[[str, int], bytes], root: bytes) -> bytes:
    """Follow the chain of roots to its end; returns the bytes of the newest root."""
    newest = root
    for _ in range(state.policy.max_rotations):
        try:
            data = get(f"{state.root.version + 1}.root.json", state.policy.max_root)
        except NotFoundError:
            break
        state.update_root(data)
        newest = data
    return newest


def newest(directory: Path, root: bytes, *, now: datetime) -> Floor:
    """The floor that a client would remember, with all releases of a repository.

    Args:
        directory: holds `metadata`.
        root: the trusted root.
        now: the time, UTC.

    Raises:
        TrustError: the metadata is refused.
        RepositoryError: a file cannot be read.
    """
    get, limits = reader(directory), Policy()
    state = TrustedState(root, now=now)
    try:
        while True:
            state.update_root(get(f"{state.root.version + 1}.root.json", limits.max_root))
    except NotFoundError:
        state.update_timestamp(get("timestamp.json", limits.max_timestamp))
    pin = state.snapshot_pin
    state.update_snapshot(get(f"{pin.version}.snapshot.json", limits.max_snapshot))
    return state.new_floor()


def reader(directory: Path) -> Callable[[str, int], bytes]:
    """A function that gets metadata files of a repository, for `judge` and `phase.trust.refresh`."""
    metadata = directory / "metadata"
    return lambda name, max_bytes: read_plain(metadata / name, max_bytes)


def read_plain(path: Path, max_bytes: int) -> bytes:
    """Read a file that others may have written, without following a link or waiting for a pipe.

    Args:
        path: of the file.
        max_bytes: one byte more is read, so that the caller sees that it is longer.

    Raises:
        NotFoundError: the file does not exist.
        RepositoryError: it cannot be read.
    """
    try:
        with open(files.open_plain(path), "rb") as handle:
            return handle.read(max_bytes + 1)
    except FileNotFoundError:
        raise NotFoundError(f"{path.parent} has no {path.name}") from None
    except OSError as error:
        raise RepositoryError(unreadable(path, error)) from error
