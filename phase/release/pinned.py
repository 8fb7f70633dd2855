"""The memory of a directory of keys: the repositories that its keys have signed for.

    pinned.json     hash of a repository's first root -> the versions published last (`floor`), and the
                    highest version of each role that was signed, also of drafts given up since (`signed`)

Others may write to the repository itself: a web server, a shared disk, a host that has the online keys only.
Nothing is signed on top of it unless it verifies from this root and is not older than these versions.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, NamedTuple

import msgspec
from tuf.api.metadata import Root

from phase import files
from phase.errors import printable, unreadable
from phase.foreign import MalformedError, read_json
from phase.release.errors import KeysError, RepositoryError
from phase.release.roles import MAX_ROOT
from phase.trust import Floor, FormatError, TrustError, wire
from phase.trust import floor as floors

NAME = "pinned.json"
_MAX_BYTES = 8 << 20
#: Limit for the repositories that one directory of keys signs for.
_MAX_REPOSITORIES = 64


def repository_id(root: bytes) -> str:
    """The id of a repository: the SHA-256 of the signed part of its first root.

    Args:
        root: the first root.

    Raises:
        RepositoryError: the bytes are not a root.
    """
    try:
        signed, opened = wire.read(root, Root, name="1.root.json", max_bytes=MAX_ROOT)
    except TrustError as error:
        raise RepositoryError(f"the first root is damaged: {error.what}") from error
    if signed.version != 1:
        raise RepositoryError(
            f"this is root version {signed.version}, not the first", hint="Give the file 1.root.json."
        )
    return sha256(opened.payload).hexdigest()


class _Known(NamedTuple):
    floor: Floor = Floor()
    signed: Mapping[str, int] = MappingProxyType({})


class _Stored(msgspec.Struct, frozen=True):
    floor: msgspec.Raw
    signed: dict[str, Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]] = {}


class Pin:
    """The memory of one or several directories of keys, about one repository.

    Args:
        directories: of keys.
        repository: from `repository_id`.
        told: the caller names the repository itself, so no directory has to know it.

    Raises:
        RepositoryError: a directory knows other repositories, and not this one.
        KeysError: a memory is damaged.
    """

    def __init__(self, directories: Iterable[Path], repository: str, *, told: bool = False) -> None:
        self.repository = repository
        self._known = {directory: _load(directory / NAME) for directory in directories}
        for directory, known in self._known.items():
            if known and repository not in known and not told:
                raise RepositoryError(
                    f"the keys in {printable(str(directory))} have signed for another repository: "
                    f"this one begins with another root, {repository}",
                    hint="If it is a second repository of yours, name its first root with --root.",
                )

    @property
    def known(self) -> bool:
        """Whether one of the directories has signed for this repository before."""
        return any(self.repository in known for known in self._known.values())

    @property
    def floors(self) -> list[Floor]:
        """The floors that the directories remember."""
        return [known[self.repository].floor for known in self._known.values() if self.repository in known]

    @property
    def signed(self) -> dict[str, int]:
        """The highest version of each role that keys of any of the directories have signed."""
        found: dict[str, int] = {}
        for known in self._known.values():
            for role, version in known.get(self.repository, _Known()).signed.items():
                found[role] = max(version, found.get(role, 0))
        return found

    def remember(self, floor: Floor | None, signed: Mapping[str, int]) -> list[str]:
        """Remember the published and the signed versions.

        Args:
            floor: of a machine that has seen the published roles; None to keep the last one.
            signed: version by role.

        Returns:
            Problems, a line each: the directory may be on a write-protected medium.
        """
        failed = []
        for directory in self._known:
            try:
                with _locked(directory):
                    self._known[directory] = _remembered(directory / NAME, self.repository, floor, signed)
            except OSError as error:
                path = printable(str(directory / NAME))
                failed.append(
                    f"{path} cannot be written: {error.strerror}; a change by others may be missed"
                )
        return failed


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Let one process at a time change the memory of a directory."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remembered(
    path: Path, repository: str, floor: Floor | None, signed: Mapping[str, int]
) -> dict[str, _Known]:
    """Write the entry of one repository, beside those of others."""
    known = _load(path)
    had = known.pop(repository, _Known())
    highest = {role: max(version, had.signed.get(role, 0)) for role, version in signed.items()}
    known[repository] = _Known(had.floor if floor is None else floor, {**had.signed, **highest})
    while len(known) > _MAX_REPOSITORIES:
        known.pop(next(iter(known)))
    text = {
        name: _Stored(msgspec.Raw(floors.encode(each.floor)), dict(each.signed))
        for name, each in known.items()
    }
    files.write(path, msgspec.json.encode(text) + b"\n", mode=0o644)
    return known


def _load(path: Path) -> dict[str, _Known]:
    try:
        with open(files.open_plain(path), "rb") as handle:
            data = handle.read(_MAX_BYTES + 1)
        found = read_json(data, dict[str, _Stored])
        return {
            name: _Known(floors.parse(bytes(each.floor), str(path)), each.signed)
            for name, each in found.items()
        }
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise KeysError(unreadable(path, error)) from error
    except (MalformedError, FormatError) as error:
        raise KeysError(
            f"{path} is damaged: {error}",
            hint="Remove it, and name the root that you trust with --root.",
        ) from error
