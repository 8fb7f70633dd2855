"""Metadata that waits for signatures: carried to who holds the keys, and back.

    staged/{role}.json     in a repository; not part of what is served
    {role}.json            in a directory that is carried

Who holds an offline key sees what is signed before it is.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata, Root, Targets

from phase import files
from phase.errors import PhaseError
from phase.release.errors import RepositoryError
from phase.release.keys import ReleaseKeys, add_signature
from phase.release.manifest import Manifest
from phase.release.roles import RELEASE_FIELD, TOP, kind
from phase.trust import wire

PLACE = "staged"
_MAX_METADATA = 5_000_000
_MAX_FILES = 256


def load(directory: Path) -> dict[str, Metadata[Any]]:
    """Read a directory of staged metadata.

    Args:
        directory: holds `{role}.json`.

    Returns:
        Role to metadata; nothing if there is no such directory.

    Raises:
        RepositoryError: something in it is no such metadata.
    """
    found = {}
    for path in sorted(directory.glob("*.json"))[:_MAX_FILES]:
        role = path.name.removesuffix(".json")
        try:
            with path.open("rb") as handle:
                data = handle.read(_MAX_METADATA + 1)
            if role == "root":
                wire.read(data, Root, name=path.name, max_bytes=_MAX_METADATA)
            else:
                wire.read(data, Targets, name=path.name, max_bytes=_MAX_METADATA)
            found[role] = Metadata[Any].from_bytes(data)
        except OSError as error:
            raise RepositoryError(f"{path} cannot be read: {error.strerror}") from error
        except PhaseError as error:
            raise RepositoryError(f"{path} is damaged: {error.what}") from error
    return found


def save(directory: Path, staged: Mapping[str, Metadata[Any]]) -> None:
    """Write staged metadata.

    Raises:
        RepositoryError: it cannot be written.
    """
    try:
        if staged:
            files.make_public(directory)
        for role, metadata in staged.items():
            files.write(directory / f"{role}.json", metadata.to_bytes())
    except OSError as error:
        raise RepositoryError(f"{directory} cannot be written: {error.strerror}") from error


def drop(directory: Path, roles: Iterable[str]) -> None:
    """Forget staged metadata: it is published.

    Raises:
        RepositoryError: it cannot be removed.
    """
    try:
        for role in roles:
            (directory / f"{role}.json").unlink(missing_ok=True)
    except OSError as error:
        raise RepositoryError(f"{directory} cannot be written: {error.strerror}") from error


def sign(directory: Path, keys: ReleaseKeys) -> list[str]:
    """Add the signatures of the keys at hand to a carried directory.

    Args:
        directory: holds `{role}.json`.
        keys: who signs. Whether their signatures count, the repository decides when they are back.

    Returns:
        The roles signed.

    Raises:
        RepositoryError: there is nothing to sign, or it cannot be written.
    """
    staged = load(directory)
    if not staged:
        raise RepositoryError(f"{directory} holds nothing to sign")
    signed = []
    for role, metadata in staged.items():
        for signer in keys[kind(role)]:
            add_signature(metadata, signer)
            signed.append(role)
    save(directory, staged)
    return sorted(set(signed))


def summary(role: str, metadata: Metadata[Any]) -> list[str]:
    """What is signed, for who signs it: lines of text."""
    signed = metadata.signed
    lines = [f"{role}, version {signed.version}, holds until {signed.expires:%Y-%m-%d}"]
    if isinstance(signed, Root):
        for name in TOP:
            rule = signed.roles[name]
            lines.append(f"  {rule.threshold} of {len(rule.keyids)} sign {name}:")
            lines += (f"    {key}" for key in publics(signed, rule.keyids))
    elif role == "targets" and signed.delegations is not None:
        for name, delegated in sorted((signed.delegations.roles or {}).items()):
            lines.append(f"  {delegated.threshold} of {len(delegated.keyids)} sign {name}:")
            lines += (f"    {key}" for key in publics(signed.delegations, delegated.keyids))
        field = signed.unrecognized_fields.get(RELEASE_FIELD, {})
        if not signed.delegations.roles and field:
            lines.append(f"  {field['threshold']} of {len(field['keyids'])} sign releases:")
            lines += (f"    {key}" for key in publics(signed.delegations, field["keyids"]))
    elif role not in TOP:
        manifest = Manifest.from_role(role, signed)
        lines.append(f"  release {manifest.release} of {manifest.channel} for {manifest.arch}")
        lines.append(f"  command line: {manifest.cmdline or '(empty)'}")
        for name, artifact in sorted(manifest.artifacts.items()):
            lines.append(f"  {name}: {artifact.length} bytes, sha256 {artifact.sha256}")
    return lines


def publics(holder: Any, keyids: Iterable[str]) -> list[str]:
    """Public keys by their ids, where the holder has them."""
    return [holder.keys[keyid].keyval.get("public", keyid) for keyid in keyids if keyid in holder.keys]
