"""Reads a published repository: its roles, its releases, and the files of each release."""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, cast

from tuf.api.metadata import DelegatedRole, Role, Root, Snapshot, Targets, Timestamp

from phase import arch as arches
from phase import files
from phase.errors import unreadable
from phase.release import blobs
from phase.release.errors import RepositoryError
from phase.release.manifest import Manifest, role_name, split_role
from phase.release.roles import TOP, Rule, public, read_rules
from phase.trust import wire
from phase.trust.errors import TrustError

AnyRole = Root | Timestamp | Snapshot | Targets
_KINDS: dict[str, type[Any]] = {"root": Root, "timestamp": Timestamp, "snapshot": Snapshot}
_MAX_METADATA = 5_000_000


class Entry(NamedTuple):
    """A file of a repository.

    Attributes:
        path: relative to the repository, with slashes.
        file: on disk.
    """

    path: str
    file: Path


class Tree:
    """The metadata of a repository, and the places of its blobs.

    Args:
        directory: of the repository.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._signed: dict[str, AnyRole] = {}
        #: The bytes that are on disk, or will be: hashes of metadata are made from them.
        self._bytes: dict[str, bytes] = {}

    @staticmethod
    def published_in(directory: Path) -> "Tree":
        """What is published in a directory, to be read only.

        Args:
            directory: of a repository, or of a copy that has some of its releases.

        Raises:
            RepositoryError: it has none, or a damaged one.
        """
        tree = Tree(directory)
        tree._load_all()
        return tree

    @property
    def unpublished(self) -> bool:
        """Whether there are changes that are not published."""
        return False

    def releases(self) -> list[tuple[str, str]]:
        """Channel and architecture of every release."""
        return [split_role(role) for role in self._delegations]

    def manifest(self, channel: str, arch: str) -> Manifest:
        """The release of a channel and architecture.

        Raises:
            RepositoryError: the release is not here.
        """
        role = role_name(channel, arches.canonical(arch))
        signed = self._signed.get(role)
        if not isinstance(signed, Targets):
            raise RepositoryError(f"{self.directory} has no release of {channel}/{arch}")
        return Manifest.from_role(role, signed)

    @property
    def expires(self) -> datetime:
        """When the first of the signatures ends, UTC."""
        return min(signed.expires for signed in self._signed.values())

    def expiries(self) -> dict[str, datetime]:
        """When each role's signature ends, UTC."""
        return {role: signed.expires for role, signed in sorted(self._signed.items())}

    def versions(self) -> dict[str, int]:
        """The version of each role."""
        return {role: signed.version for role, signed in sorted(self._signed.items())}

    @property
    def timestamp_expires(self) -> datetime:
        """When the timestamp's signature ends, UTC. It always ends soon."""
        return self._timestamp.expires

    def published(self) -> dict[str, AnyRole]:
        """The signed part of every role that is here, by name: the top-level roles first."""
        top = {role: self._signed[role] for role in TOP if role in self._signed}
        return top | {role: self._signed[role] for role in sorted(self._delegations) if role in self._signed}

    def present(self) -> list[tuple[str, str]]:
        """Channel and architecture of every release whose metadata is here."""
        return [split_role(role) for role in self.published() if role not in TOP]

    def published_rules(self) -> dict[str, Rule]:
        """The rules of the published top-level roles and of `release`; empty if nothing is published."""
        return read_rules(self._root, self._targets) if "targets" in self._signed else {}

    def rule(self, role: str) -> Role:
        """The key ids and the threshold of a published role."""
        return self._root.roles[role] if role in TOP else self._delegations[role]

    def publics(self, role: str) -> list[str]:
        """The public keys that can sign a published role."""
        delegations = self._targets.delegations
        keys = self._root.keys if role in TOP or delegations is None else delegations.keys
        return [public(keys[keyid]) for keyid in self.rule(role).keyids if keyid in keys]

    def metadata(self, only: Iterable[tuple[str, str]] | None = None) -> dict[str, bytes]:
        """The metadata that a client needs to verify releases.

        Args:
            only: channels and architectures; all when left out.

        Returns:
            File name to bytes: every root, the timestamp, and the files that it leads to.

        Raises:
            RepositoryError: not published yet, or no such release.
        """
        return {entry.file.name: _read(entry.file) for entry in self._metadata_entries(only)}

    def subset(self, only: Iterable[tuple[str, str]]) -> list[Entry]:
        """The files that serve some releases and no others.

        Args:
            only: channels and architectures.

        Returns:
            Metadata, then blobs; each once.

        Raises:
            RepositoryError: not published yet, or no such release.
        """
        wanted = list(only)
        hashes = {
            artifact.sha256
            for channel, arch in wanted
            for artifact in self.manifest(channel, arch).artifacts.values()
        }
        place = self.directory / blobs.PLACE
        return [
            *self._metadata_entries(wanted),
            *(Entry(f"{blobs.PLACE}/{digest}", place / digest) for digest in sorted(hashes)),
        ]

    def _metadata_entries(self, only: Iterable[tuple[str, str]] | None) -> list[Entry]:
        directory = self.directory / "metadata"
        if self.unpublished or "timestamp" not in self._bytes:
            raise RepositoryError(f"{self.directory} has unpublished changes", hint="Publish first.")
        if only is None:
            wanted = [role for role in self._delegations if role in self._signed]
        else:
            wanted = [role_name(channel, arches.canonical(arch)) for channel, arch in only]
        absent = [role for role in wanted if role not in self._signed]
        if absent:
            raise RepositoryError(f"{self.directory} has no release of {', '.join(absent)}")
        names = [f"{number}.root.json" for number in range(1, self._root.version + 1)]
        names = [*(name for name in names if (directory / name).exists()), "root.json", "timestamp.json"]
        names += [f"{self._signed[role].version}.{role}.json" for role in ("snapshot", "targets", *wanted)]
        return [Entry(f"metadata/{name}", directory / name) for name in names]

    def _read(self, role: str, data: bytes, name: str = "") -> AnyRole:
        try:
            found: AnyRole
            found, _ = wire.read(data, _KINDS.get(role, Targets), name=name or role, max_bytes=_MAX_METADATA)
        except TrustError as error:
            raise RepositoryError(f"{self.directory} is damaged: {error.what}") from error
        return found

    def _load_all(self) -> None:
        """Read the published metadata."""
        self._load("timestamp", "timestamp.json")
        # Not root.json, since an interrupted publication may have written only the file with the version.
        self._load("root", _newest_root(self.directory / "metadata"))
        self._load("snapshot", f"{self._timestamp.snapshot_meta.version}.snapshot.json")
        pins = self._snapshot.meta
        if "targets.json" in pins:
            self._load("targets", f"{pins['targets.json'].version}.targets.json")
        for role in self._delegations:
            pin = pins.get(f"{role}.json")
            # A machine that booted serves its own release, without the other roles of the snapshot.
            if pin and (self.directory / "metadata" / f"{pin.version}.{role}.json").exists():
                self._load(role, f"{pin.version}.{role}.json")

    def _load(self, role: str, name: str) -> None:
        data = _read(self.directory / "metadata" / name)
        signed = self._read(role, data, name)
        if (
            isinstance(signed, Targets)
            and role == "targets"
            and (signed.delegations is None or signed.delegations.roles is None)
        ):
            raise RepositoryError(
                f"{self.directory} is not a repository of Phase: {name} delegates to no one"
            )
        self._signed[role] = signed
        self._bytes[role] = data

    @property
    def _root(self) -> Root:
        return cast("Root", self._signed["root"])

    @property
    def _timestamp(self) -> Timestamp:
        return cast("Timestamp", self._signed["timestamp"])

    @property
    def _snapshot(self) -> Snapshot:
        return cast("Snapshot", self._signed["snapshot"])

    @property
    def _targets(self) -> Targets:
        return cast("Targets", self._signed["targets"])

    @property
    def _delegations(self) -> dict[str, DelegatedRole]:
        targets = self._signed.get("targets")
        found = targets.delegations if isinstance(targets, Targets) else None
        return found.roles or {} if found else {}


def _newest_root(directory: Path) -> str:
    versions = [path.name.partition(".")[0] for path in directory.glob("*.root.json")]
    return f"{max((int(v) for v in versions if v.isdecimal()), default=1)}.root.json"


def _read(path: Path) -> bytes:
    try:
        with open(files.open_plain(path), "rb") as handle:
            return handle.read(_MAX_METADATA + 1)
    except OSError as error:
        raise RepositoryError(
            unreadable(path, error), hint="Publish the release again, or copy it whole."
        ) from error
