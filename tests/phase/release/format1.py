"""How seeds read a manifest that were built when there was one format only; not to be changed any more.

Their code of November 2026, without the checks that are not of chunks.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from tuf.api.metadata import TargetFile, Targets

MAX_CHUNKS = 65_536
_CHUNK_SIZES = (1 << 16, 1 << 24)
_HEX = re.compile(r"[0-9a-f]{64}")


class Artifact(NamedTuple):
    """One file of a release."""

    name: str
    length: int
    sha256: str
    chunk_size: int
    chunks: tuple[str, ...]
    path: str


def read(role: str, signed: Targets) -> Mapping[str, Artifact]:
    """The artifacts of a role, by name; a release that an old seed refuses is a ValueError."""
    channel, _, arch = role.rpartition("-")
    facts = signed.unrecognized_fields.get("x-phase")
    if not isinstance(facts, dict) or (facts.get("channel"), facts.get("arch")) != (channel, arch):
        raise ValueError(facts)
    found = [_artifact(f"{channel}/{arch}/", path, target) for path, target in signed.targets.items()]
    return {artifact.name: artifact for artifact in found}


def _artifact(prefix: str, path: str, target: TargetFile) -> Artifact:
    name = path.removeprefix(prefix)
    custom = target.custom
    facts = custom.get("phase") if isinstance(custom, dict) else None
    if not isinstance(facts, dict):
        raise ValueError(f"{name} has no chunk list")
    size, chunks = facts.get("chunk_size"), facts.get("chunks")
    if type(size) is not int or not _CHUNK_SIZES[0] <= size <= _CHUNK_SIZES[1] or size & (size - 1):
        raise ValueError(f"{name} has chunks of {size} bytes")
    if type(target.length) is not int or not 0 < target.length <= size * MAX_CHUNKS:
        raise ValueError(f"{name} has an absurd length, {target.length}")
    expected = -(-target.length // size)
    if not isinstance(chunks, list) or len(chunks) != expected:
        raise ValueError(f"{name} needs {expected} chunk hashes")
    whole = target.hashes.get("sha256")
    for digest in (whole, *chunks):
        if not isinstance(digest, str) or not _HEX.fullmatch(digest):
            raise ValueError(f"{name} has a malformed SHA-256, {digest}")
    return Artifact(name, target.length, str(whole), size, tuple(chunks), path)
