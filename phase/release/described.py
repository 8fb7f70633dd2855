"""Releases as their metadata describes them, read as it stands: no signature is looked at.

What is read so is a hint. Who copies a chunk by it verifies the chunk, so that a lie costs a read.
"""

import re
from collections.abc import Iterable, Mapping

from phase.errors import PhaseError
from phase.release.manifest import Manifest, split_role
from phase.trust import Policy, wire

#: Limit for the roles of releases that are read of one place.
_MOST_ROLES = 16
_ROLE = re.compile(r"(\d{1,16})\.([A-Za-z0-9_-]+)\.json")
_TOP = ("root", "snapshot", "targets")


def releases(metadata: Mapping[str, bytes]) -> list[Manifest]:
    """The releases that some metadata describes, none of them verified; the newest first.

    Args:
        metadata: file name to bytes, from anywhere.
    """
    found = (read(role, metadata[file]) for role, file in roles(metadata))
    return [manifest for manifest in found if manifest]


def read(role: str, data: bytes) -> Manifest | None:
    """A manifest as it stands, not verified; None if it cannot be read."""
    from tuf.api.metadata import Targets

    try:
        split_role(role)
        signed, _ = wire.read(data, Targets, name=role, max_bytes=Policy().max_targets)
        return Manifest.from_role(role, signed)
    except PhaseError:
        return None


def roles(names: Iterable[str]) -> list[tuple[str, str]]:
    """Roles of releases and their files, as many as are read; the newest versions first.

    Args:
        names: of files of metadata, and of others.
    """
    found = []
    for name in names:
        match = _ROLE.fullmatch(name)
        if match and match[2] not in _TOP:
            found.append((int(match[1]), match[2], name))
    return [(role, name) for _, role, name in sorted(found, reverse=True)[:_MOST_ROLES]]
