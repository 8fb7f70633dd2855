"""One refresh: gets metadata files and follows them from a trusted root to a verified manifest."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, TypeVar

from tuf.api.metadata import MetaFile, Targets

from phase.release.errors import ManifestError
from phase.release.manifest import Manifest, role_name
from phase.trust.errors import NotFoundError, SizeError, TrustError, WrongTargetError
from phase.trust.floor import Floor
from phase.trust.state import Policy, TrustedState

_T = TypeVar("_T")
#: Seconds of grace for what is on the disk: it proves the versions that were there, however old.
ANY_AGE = 100 * 365 * 86_400


class Refreshed(NamedTuple):
    """The result of a refresh.

    Attributes:
        manifest: verified.
        metadata: file name to bytes: everything that a client with the same root needs to verify it.
        floor: to remember for the next refresh.
        overdue: names of the files that had expired and were taken by the policy's grace.
    """

    manifest: Manifest
    metadata: Mapping[str, bytes]
    floor: Floor
    overdue: tuple[str, ...] = ()


def held(files: Mapping[str, bytes]) -> Callable[[str, int], bytes]:
    """Gets metadata that is here already, for `refresh`.

    Args:
        files: file name to bytes. None of them is trusted.

    Returns:
        A function that raises `NotFoundError` for a file that is not among them.
    """

    def get(file: str, _: int) -> bytes:
        if file not in files:
            raise NotFoundError(f"there is no {file} here")
        return files[file]

    return get


def refresh(
    root: bytes,
    get: Callable[[str, int], bytes],
    *,
    channel: str,
    arch: str,
    now: datetime,
    floor: Floor | None = None,
    others: Sequence[Floor] = (),
    policy: Policy | None = None,
    cached: Mapping[str, bytes] | None = None,
    missing: type[Exception] | tuple[type[Exception], ...] = NotFoundError,
) -> Refreshed:
    """Follow the TUF client workflow to the manifest of a channel and architecture.

    Args:
        root: bytes of the trusted root, from the image; never from a provider.
        get: gets a metadata file by its name, with a limit in bytes. Its result is not trusted.
        channel: for example `stable`.
        arch: `x86_64` or `arm64`.
        now: the time, UTC; see `phase.trust.clock`.
        floor: from the last refresh.
        others: floors that other places remember; the highest version counts.
        policy: limits, and for how long expired metadata is still taken.
        cached: metadata of an earlier refresh. A file in it replaces a request if it has the version that is
            signed for. It is verified again like one from a provider, against the present delegator.
        missing: exceptions that `get` raises if there is no such file.

    Returns:
        The manifest, the metadata that proves it, the new floor.

    Raises:
        TrustError: a file was refused; says which one, and what was expected and found.
        Exception: any other exception of `get`.
    """
    try:
        role = role_name(channel, arch)
    except ManifestError as error:
        raise WrongTargetError(error.what, hint=error.hint) from error
    state = TrustedState(root, now=now, floor=floor, policy=policy, others=others)
    steps = _Refresh(state, root, get, cached=cached or {}, missing=missing)
    steps.follow_roots()
    steps.take_timestamp()
    steps.take_snapshot()
    steps.take_targets()
    manifest = steps.take_manifest(role)
    return Refreshed(manifest, steps.metadata, state.new_floor(), tuple(state.overdue))


class _Refresh:
    """The steps of one refresh, to be called in their order.

    Args:
        state: verifies, and remembers what is trusted so far.
        root: bytes of the trusted root.
        get: gets a metadata file.
        cached: metadata of an earlier refresh, not trusted either.
        missing: exceptions of `get` if there is no such file.
    """

    def __init__(
        self,
        state: TrustedState,
        root: bytes,
        get: Callable[[str, int], bytes],
        *,
        cached: Mapping[str, bytes],
        missing: type[Exception] | tuple[type[Exception], ...],
    ) -> None:
        self._state = state
        self._limits = state.policy
        self._get = get
        self._cached = cached
        self._missing = missing
        #: What has been verified, by file name.
        self.metadata = {f"{state.root.version}.root.json": root, "root.json": root}

    def follow_roots(self) -> None:
        """Take one new root after the other until the provider has no further one (5.3)."""
        for _ in range(self._limits.max_rotations):
            name = f"{self._state.root.version + 1}.root.json"
            try:
                self._take(name, self._limits.max_root, self._state.update_root)
            except self._missing:
                return
            self.metadata["root.json"] = self.metadata[name]

    def take_timestamp(self) -> None:
        """Take the timestamp: always a new one, since it says what is the newest (5.4)."""
        data = self._fetch("timestamp.json", self._limits.max_timestamp)
        self._state.update_timestamp(data)
        self.metadata["timestamp.json"] = data

    def take_snapshot(self) -> None:
        """Take the snapshot that the timestamp names (5.5)."""
        pin, limit = self._state.snapshot_pin, self._limits.max_snapshot
        self._take_pinned("snapshot.json", pin, limit, self._state.update_snapshot)

    def take_targets(self) -> None:
        """Take the top-level targets that the snapshot names (5.6)."""
        pin, limit = self._state.meta_pin("targets"), self._limits.max_targets
        self._take_pinned("targets.json", pin, limit, self._state.update_targets)

    def take_manifest(self, role: str) -> Manifest:
        """Take the role of a release, and read the manifest in it (5.6.7)."""
        state = self._state
        state.delegation(role)

        def update(data: bytes) -> Targets:
            return state.update_delegated(role, data)

        targets = self._take_pinned(f"{role}.json", state.meta_pin(role), self._limits.max_targets, update)
        try:
            manifest = Manifest.from_role(role, targets)
        except ManifestError as error:
            raise WrongTargetError(
                f"signed, but not a release to boot: {error.what}", hint=error.hint
            ) from error
        for artifact in manifest.artifacts.values():
            state.check_path(role, artifact.path)
        return manifest

    def _take_pinned(self, file: str, pin: MetaFile, limit: int, update: Callable[[bytes], _T]) -> _T:
        """Take a file whose version is signed for."""
        # One byte more than is signed would be refused, so it is not read either.
        bound = limit if pin.length is None else min(limit, pin.length)
        return self._take(f"{pin.version}.{file}", bound, update)

    def _take(self, name: str, limit: int, update: Callable[[bytes], _T]) -> _T:
        """Take a file from the cache if it is there and is accepted; otherwise get it."""
        if (cached := self._cached.get(name)) is not None:
            # A damaged file in the cache must not stop every refresh. A refused file is refused again.
            with contextlib.suppress(TrustError):
                taken = update(cached)
                self.metadata[name] = cached
                return taken
        data = self._fetch(name, limit)
        taken = update(data)
        self.metadata[name] = data
        return taken

    def _fetch(self, name: str, limit: int) -> bytes:
        data = self._get(name, limit)
        if len(data) > limit:
            raise SizeError(f"{name} has {len(data)} bytes; the limit is {limit}")
        return data
