"""The manifest: the release of a channel and architecture, as read from its signed TUF role.

Pure, and cheap to import: the seed and every server read manifests with it.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from phase.arch import ARCHES
from phase.release import cut
from phase.release.errors import ManifestError

if TYPE_CHECKING:
    from tuf.api.metadata import TargetFile, Targets

#: Field of the role's signed part for the facts that TUF does not define.
FIELD = "x-phase"
#: The newest format of manifests that is understood, and the one that is written. Format 1, which has no
#: field that says so, lists chunks of one size; format 2 lists, beside them, chunks that are cut by content.
FORMAT = 2
CHUNK_SIZE = 1 << 20
MAX_ARTIFACTS = 64
MAX_CHUNKS = cut.MAX_CHUNKS
#: Limit for the command line: what the kernels of both architectures take, less room for carried parameters.
MAX_CMDLINE = 1536
_CHUNK_SIZES = (1 << 16, 1 << 24)
_CHANNEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_-]{0,63}")
_HEX = re.compile(r"[0-9a-f]{64}")


class Artifact(NamedTuple):
    """One file of a release.

    Attributes:
        name: `kernel`, `initramfs`, `rootfs`, `dtb-...`.
        length: bytes.
        sha256: of the whole, 64 hex digits.
        starts: where each chunk starts, and where the last one ends, bytes.
        chunks: SHA-256 of each chunk in order, 64 hex digits.
        path: TUF target path, `{channel}/{arch}/{name}`.
    """

    name: str
    length: int
    sha256: str
    starts: tuple[int, ...]
    chunks: tuple[str, ...]
    path: str

    @property
    def content(self) -> str:
        """A hash over everything that its bytes are verified with: each content has its own.

        Of chunks of one size it is what it was before there were others: caches have files of that name.
        """
        length, starts = self.length, self.starts
        size = starts[1] if len(starts) > 2 else CHUNK_SIZE
        even = starts == (*range(0, length, size), length)
        places = f"{length} {size}" if even else " ".join(map(str, starts))
        return sha256(f"{places} {' '.join(self.chunks)}".encode()).hexdigest()


class Manifest(NamedTuple):
    """One signed release of a channel and architecture.

    Attributes:
        channel: for example `stable`.
        arch: `x86_64` or `arm64`.
        version: of the TUF role; it only rises.
        release: the version for people.
        expires: UTC.
        cmdline: the signed kernel command line.
        artifacts: by name.
        before: the release before it, for machines on which this one does not come up; None where the
            publisher names none. It has the version of this one, so that going back to it lowers nothing.
    """

    channel: str
    arch: str
    version: int
    release: str
    expires: datetime
    cmdline: str
    artifacts: Mapping[str, Artifact]
    before: "Manifest | None" = None

    @property
    def contents(self) -> set[str]:
        """What its artifacts are verified with, and those of the release before."""
        own = {artifact.content for artifact in self.artifacts.values()}
        return own | (self.before.contents if self.before else set())

    @property
    def rootfs(self) -> Artifact | None:
        """What a system is known by; a release may go without one."""
        return self.artifacts.get("rootfs")

    @classmethod
    def from_role(cls, role: str, signed: "Targets") -> "Manifest":
        """Read a verified role.

        Args:
            role: its name, `{channel}-{arch}`.
            signed: the signed part of its metadata.

        Raises:
            ManifestError: it is not a release of this channel and architecture, or has impossible values.
        """
        channel, arch = split_role(role)
        facts = signed.unrecognized_fields.get(FIELD)
        if not isinstance(facts, dict):
            raise ManifestError(f"{role}: the signed field {FIELD!r} is missing")
        for field, expected in (("channel", channel), ("arch", arch)):
            if facts.get(field) != expected:
                raise ManifestError(
                    f"{role}: signed for {field} {_shown(facts.get(field))}, expected {expected!r}"
                )
        version = _format(role, facts.get("format", 1))
        if len(signed.targets) > MAX_ARTIFACTS:
            raise ManifestError(f"{role} has {len(signed.targets)} artifacts; the limit is {MAX_ARTIFACTS}")
        artifacts = {}
        for path, target in signed.targets.items():
            artifact = _artifact(role, f"{channel}/{arch}/", path, target, version)
            artifacts[artifact.name] = artifact
        _check_blobs(role, artifacts.values())
        if "kernel" not in artifacts:
            raise ManifestError(f"{role}: a release without a kernel boots nothing")
        found = cls(
            channel,
            arch,
            signed.version,
            check_release(facts.get("release")),
            signed.expires,
            check_cmdline(facts.get("cmdline", "")),
            artifacts,
        )
        return found if "before" not in facts else found._replace(before=_before(found, facts["before"]))


def role_name(channel: str, arch: str) -> str:
    """The TUF role of a channel and architecture.

    Raises:
        ManifestError: one of the names is not valid.
    """
    if not _CHANNEL.fullmatch(channel):
        raise ManifestError(
            f"{channel[:80]!r} is not a channel name", hint="Letters, digits, - and _; 64 at most."
        )
    if arch not in ARCHES:
        raise ManifestError(f"{arch[:80]!r} is not an architecture", hint=f"Use one of {', '.join(ARCHES)}.")
    return f"{channel}-{arch}"


def split_role(role: str) -> tuple[str, str]:
    """Channel and architecture of a role name.

    Raises:
        ManifestError: it is not the name of a channel's role.
    """
    channel, _, arch = role.rpartition("-")
    role_name(channel, arch)
    return channel, arch


def is_name(name: str) -> bool:
    """Whether a text is a valid name of an artifact."""
    return bool(_NAME.fullmatch(name))


def check_name(name: str) -> str:
    """An artifact's name, or ManifestError."""
    if not is_name(name):
        raise ManifestError(
            f"{name[:80]!r} is not an artifact name", hint="Lower case letters, digits, . _ -"
        )
    return name


def check_release(release: object) -> str:
    """A release's human version, or ManifestError."""
    if not isinstance(release, str) or not _RELEASE.fullmatch(release):
        raise ManifestError(f"{_shown(release)} is not a release version", hint="For example 1.2.3.")
    return release


def check_cmdline(cmdline: object) -> str:
    """A kernel command line that can be signed and passed on, or ManifestError."""
    if not isinstance(cmdline, str) or not cmdline.isascii() or not cmdline.isprintable():
        raise ManifestError(
            f"{_shown(cmdline)} is not a kernel command line", hint="One line of printable ASCII."
        )
    if len(cmdline) > MAX_CMDLINE:
        raise ManifestError(f"kernel command line has {len(cmdline)} bytes; the limit is {MAX_CMDLINE}")
    return cmdline


def _format(role: str, version: object) -> int:
    """The format of a manifest, if it is one that is understood."""
    if type(version) is not int or version < 1:
        raise ManifestError(f"{role} has a malformed format, {_shown(version)}")
    if version > FORMAT:
        raise ManifestError(
            f"{role} is of format {version}; formats up to {FORMAT} are understood here",
            hint="Use a newer Phase; a seed has to be built or fetched anew.",
        )
    return version


def _artifact(role: str, prefix: str, path: str, target: "TargetFile", version: int) -> Artifact:
    name = path.removeprefix(prefix)
    if name == path or not _NAME.fullmatch(name):
        raise ManifestError(f"{role}: target {path[:120]!r} is not an artifact below {prefix!r}")
    custom = target.custom
    facts = custom.get("phase") if isinstance(custom, dict) else None
    if not isinstance(facts, dict):
        raise ManifestError(f"{role}: {name} has no chunk list")
    return _described(role, name, path, target.length, target.hashes.get("sha256"), facts, version)


def _described(
    role: str, name: str, path: str, length: object, sha256: object, facts: dict[str, object], version: int
) -> Artifact:
    """An artifact, if its length, hash and chunks make sense."""
    try:
        if type(length) is not int or not 0 < length <= cut.LONGEST * MAX_CHUNKS:
            raise ManifestError(f"has an absurd length, {_shown(length)}")
        read = _even if version == 1 else _cut
        return Artifact(name, length, _hash(sha256), *read(facts, length), path)
    except ManifestError as error:
        raise ManifestError(f"{role}: {name} {error.what}") from error


def _before(found: Manifest, facts: object) -> Manifest:
    """The release before one, as its manifest has it: a field of this one's, with chunks of format 2."""
    role = f"{role_name(found.channel, found.arch)}, the release before"
    artifacts = facts.get("artifacts") if isinstance(facts, dict) else None
    if not isinstance(facts, dict) or not isinstance(artifacts, dict) or len(artifacts) > MAX_ARTIFACTS:
        raise ManifestError(f"{role}: it is not described")
    read = {}
    for name, each in artifacts.items():
        if not isinstance(each, dict) or not _NAME.fullmatch(name):
            raise ManifestError(f"{role}: {name[:80]!r} is not an artifact")
        path = f"{found.channel}/{found.arch}/{name}"
        read[name] = _described(role, name, path, each.get("length"), each.get("sha256"), each, FORMAT)
    _check_blobs(role, [*found.artifacts.values(), *read.values()])
    if "kernel" not in read:
        raise ManifestError(f"{role}: a release without a kernel boots nothing")
    return found._replace(
        release=check_release(facts.get("release")),
        cmdline=check_cmdline(facts.get("cmdline", "")),
        artifacts=read,
    )


def _cut(facts: dict[str, object], length: int) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The chunks of format 2: those of format 1, which are for older readers, are passed over."""
    return cut.read(facts.get("cut"), length)


def _even(facts: dict[str, object], length: int) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The chunks of format 1."""
    size, chunks = facts.get("chunk_size"), facts.get("chunks")
    if type(size) is not int or not _CHUNK_SIZES[0] <= size <= _CHUNK_SIZES[1] or size & (size - 1):
        raise ManifestError(f"has chunks of {_shown(size)} bytes")
    expected = -(-length // size)
    if expected > MAX_CHUNKS:
        raise ManifestError(f"has an absurd length, {length}")
    if not isinstance(chunks, list) or len(chunks) != expected:
        found = len(chunks) if isinstance(chunks, list) else _shown(chunks)
        raise ManifestError(f"needs {expected} chunk hashes, found {found}")
    return (*range(0, length, size), length), tuple(map(_hash, chunks))


def _hash(digest: object) -> str:
    if not isinstance(digest, str) or not _HEX.fullmatch(digest):
        raise ManifestError(f"has a malformed SHA-256, {_shown(digest)}")
    return digest


def _check_blobs(role: str, artifacts: Iterable[Artifact]) -> None:
    """Refuse one hash for two contents: both would be written to one file, and one may be longer."""
    seen: dict[str, Artifact] = {}
    for artifact in artifacts:
        other = seen.setdefault(artifact.sha256, artifact)
        if other._replace(name=artifact.name, path=artifact.path) != artifact:
            raise ManifestError(
                f"{role}: {other.name} and {artifact.name} have one SHA-256, but other lengths or chunks"
            )


def _shown(value: object) -> str:
    """A hostile value, shortened for an error."""
    return repr(value)[:80] if isinstance(value, str | int | float | None) else type(value).__name__
