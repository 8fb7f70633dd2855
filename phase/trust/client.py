"""One refresh: from a trusted root and a way to get files to a verified manifest."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from tuf.api.metadata import MetaFile

from phase.release.errors import ManifestError
from phase.release.manifest import Manifest, role_name
from phase.trust.errors import NotFoundError, SizeError, TrustError, WrongTargetError
from phase.trust.floor import Floor
from phase.trust.state import Policy, TrustedState


class Refreshed(NamedTuple):
    """What a refresh ends in.

    Attributes:
        manifest: verified.
        metadata: file name to bytes: everything a client with the same root needs to verify it.
        floor: to be remembered for the next refresh.
        overdue: names of what was taken after its expiry, by the policy's grace.
    """

    manifest: Manifest
    metadata: Mapping[str, bytes]
    floor: Floor
    overdue: tuple[str, ...] = ()


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
        get: gets a metadata file by name, of at most so many bytes. Not trusted.
        channel: for example `stable`.
        arch: `x86_64` or `arm64`.
        now: the time, UTC; see `phase.trust.clock`.
        floor: what the last refresh returned.
        others: the same as other places remember it; no place can lower what another says.
        policy: limits, and how long what has expired is still taken.
        cached: metadata of an earlier refresh. Used instead of asking where the version signed for
            is there; verified again as if it came from a provider, against the delegator of now.
        missing: what `get` raises when there is no such file.

    Returns:
        The manifest, the metadata that proves it, the new floor.

    Raises:
        TrustError: something was refused; which, and what was expected and found.
        Exception: whatever else `get` raises.
    """
    state = TrustedState(root, now=now, floor=floor, policy=policy, others=others)
    limits = state.policy
    kept = cached or {}
    try:
        role = role_name(channel, arch)
    except ManifestError as error:
        raise WrongTargetError(error.what, hint=error.hint) from error
    metadata = {f"{state.root.version}.root.json": root, "root.json": root}

    def fetch(name: str, limit: int) -> bytes:
        data = get(name, limit)
        if len(data) > limit:
            raise SizeError(f"{name} has {len(data)} bytes; the limit is {limit}")
        return data

    def pinned(file: str, pin: MetaFile, limit: int) -> tuple[str, bytes, bool]:
        """Get a file whose version is signed for: from the cache, else by asking."""
        name = f"{pin.version}.{file}"
        if name in kept:
            return name, kept[name], True
        # One byte more than is signed would be refused, so it is not read either.
        bound = limit if pin.length is None else min(limit, pin.length)
        return name, fetch(name, bound), False

    def take(file: str, pin: MetaFile, limit: int, update: Callable[[bytes], object]) -> object:
        name, data, from_cache = pinned(file, pin, limit)
        try:
            result = update(data)
        except TrustError:
            if not from_cache:
                raise
            # What is damaged in the cache is asked for anew; what was refused stays refused.
            data = fetch(name, limit)
            result = update(data)
        metadata[name] = data
        return result

    for _ in range(limits.max_rotations):
        name = f"{state.root.version + 1}.root.json"
        data = kept.get(name)
        if data is not None:
            try:
                state.update_root(data)
            except TrustError:
                data = None  # as in `take`: it would stop every refresh, whoever is asked
        if data is None:
            try:
                data = fetch(name, limits.max_root)
            except missing:
                break
            state.update_root(data)
        metadata[name] = metadata["root.json"] = data

    data = fetch("timestamp.json", limits.max_timestamp)
    state.update_timestamp(data)
    metadata["timestamp.json"] = data
    take("snapshot.json", state.snapshot_pin, limits.max_snapshot, state.update_snapshot)
    take("targets.json", state.meta_pin("targets"), limits.max_targets, state.update_targets)
    state.delegation(role)
    pin = state.meta_pin(role)
    targets = None

    def update(data: bytes) -> None:
        nonlocal targets
        targets = state.update_delegated(role, data)

    take(f"{role}.json", pin, limits.max_targets, update)
    assert targets is not None  # noqa: S101  # take() raises or updates
    try:
        manifest = Manifest.from_role(role, targets)
    except ManifestError as error:
        raise WrongTargetError(f"signed, and no release to boot: {error.what}", hint=error.hint) from error
    for artifact in manifest.artifacts.values():
        state.check_path(role, artifact.path)
    return Refreshed(manifest, metadata, state.new_floor(), tuple(state.overdue))
