"""Reads the metadata files that clients can ask for into memory, within bounds."""

import logging
import re
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec

from phase import beneath
from phase.beneath import Beneath
from phase.errors import unreadable
from phase.foreign import MalformedError, read_json
from phase.provider.errors import DocumentError, RepositoryError

_log = logging.getLogger(__name__)
MAX_METADATA = 5_000_000
#: Limits for the metadata kept in memory: files, and bytes in all.
MAX_FILES = 4096
MAX_BYTES = 256_000_000
#: Older versions of each role that are kept, for clients in the middle of a refresh.
LATELY = 8
#: Limit for the files in a directory of metadata: each publication adds three, and not all publishers prune.
MAX_NAMES = 1_000_000
_VERSIONED = re.compile(r"([1-9][0-9]{0,17})\.(.+)\.json\Z")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
#: Limit for a version or a length, as clients have it: it also refuses a number of a thousand digits.
_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
MAX_SHOWN = 100


class Phase(msgspec.Struct, frozen=True):
    """The fields that Phase adds to the role of a release."""

    channel: str
    arch: str
    release: str = ""
    cmdline: str = ""
    #: Seconds; a value of any other type is ignored.
    lifetime: Any = None


class _File(msgspec.Struct, frozen=True):
    length: _Count
    hashes: dict[str, str]


class _Pinned(msgspec.Struct, frozen=True):
    version: _Count


class _Delegated(msgspec.Struct, frozen=True):
    name: str = ""


class _Delegations(msgspec.Struct, frozen=True):
    roles: list[_Delegated] = []


class Signed(msgspec.Struct, frozen=True):
    """The fields that a provider reads of any role."""

    version: _Count = 0
    expires: str = ""
    meta: dict[str, _Pinned] = {}
    targets: dict[str, _File] = {}
    delegations: _Delegations | None = None
    phase: Phase | None = msgspec.field(default=None, name="x-phase")


class _Envelope(msgspec.Struct, frozen=True):
    signed: Signed


class Document(NamedTuple):
    """A small file, served from memory."""

    body: bytes
    digest: bytes

    @property
    def etag(self) -> str:
        """Strong, and the same on every provider."""
        return f"sha256-{self.digest.hex()}"


class Documents:
    """The files of a directory of metadata, read once each and never outside the repository.

    Args:
        directory: of the repository.

    Raises:
        RepositoryError: it cannot be read.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        try:
            found = beneath.names(directory, "metadata")
        except OSError as error:
            raise RepositoryError(unreadable(directory / "metadata", error)) from error
        if len(found) > MAX_NAMES:
            raise RepositoryError(
                f"{directory / 'metadata'} has {len(found)} files; the limit is {MAX_NAMES}"
            )
        self.names = {name for name in found if name.endswith(".json") and NAME.match(name)}
        #: What has been read.
        self.read: dict[str, Document] = {}
        self._bytes = 0

    def signed(self, name: str) -> Signed:
        """The signed part of a file that the releases need.

        Raises:
            DocumentError: its content cannot be used.
            RepositoryError: it cannot be read.
        """
        shown = name[:MAX_SHOWN]
        try:
            document = self._document(name)
        except FileNotFoundError:
            raise RepositoryError(
                f"metadata/{shown} is missing", hint="Publish the release again."
            ) from None
        except OSError as error:
            raise RepositoryError(unreadable(f"metadata/{shown}", error)) from error
        try:
            return read_json(document.body, _Envelope).signed
        except MalformedError as error:
            raise DocumentError(f"metadata/{shown} cannot be read: {str(error)[:MAX_SHOWN]}") from error

    def newest_root(self) -> Signed | None:
        """The newest root; None if it cannot be read: `read_others` logs why."""
        versions = [
            int(match[1]) for match in map(_VERSIONED.match, self.names) if match and match[2] == "root"
        ]
        try:
            return self.signed(f"{max(versions)}.root.json") if versions else None
        except RepositoryError:
            return None

    def read_others(self, published: dict[str, int]) -> None:
        """Read the other files that clients ask for: roots, a few older versions, files without a version.

        Args:
            published: the version of each role.
        """
        wanted, versions = set[str](), dict[str, list[int]]()
        for name in self.names:
            match = _VERSIONED.match(name)
            if match is None:
                wanted.add(name)
            else:
                versions.setdefault(match[2], []).append(int(match[1]))
        for role, numbers in versions.items():
            newest = published.get(role, max(numbers))
            kept = sorted((number for number in numbers if role == "root" or number <= newest), reverse=True)
            wanted.update(
                f"{number}.{role}.json" for number in kept[: MAX_FILES if role == "root" else LATELY + 1]
            )
        for name in sorted(wanted - self.read.keys()):
            if len(self.read) >= MAX_FILES:
                _log.warning("metadata has more than %d files: not all are served", MAX_FILES)
                return
            self._read_other(name)

    def _read_other(self, name: str) -> None:
        """Read a file that no release needs. It is served only if it is signed metadata."""
        try:
            self.signed(name)
        except RepositoryError as error:
            self.read.pop(name, None)
            _log.warning("not served: %s", error)

    def _document(self, name: str) -> Document:
        if name not in self.read:
            if name not in self.names:
                raise FileNotFoundError(name)
            with Beneath(self._directory, f"metadata/{name}").open() as handle:
                body = handle.read(MAX_METADATA + 1)
            if len(body) > MAX_METADATA:
                raise DocumentError(f"metadata/{name[:MAX_SHOWN]} has more than {MAX_METADATA} bytes")
            if self._bytes + len(body) > MAX_BYTES:
                raise RepositoryError(
                    f"metadata/{name[:MAX_SHOWN]} and the files before it have more than {MAX_BYTES} bytes"
                )
            self._bytes += len(body)
            self.read[name] = Document(body, sha256(body).digest())
        return self.read[name]
