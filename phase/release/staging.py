"""Metadata that waits for signatures: carried to the holders of the keys, and back.

    staged/{role}.json     in a repository; it is not served
    {role}.json            in a directory that is carried
    published/*.json       beside it: the metadata that it replaces, so that a holder sees the changes

The holder of an offline key sees the metadata before signing it.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tuf.api.metadata import Metadata, Root, Signed, Targets

from phase import files
from phase.errors import PhaseError, printable, unreadable
from phase.release import roles
from phase.release.errors import ManifestError, RepositoryError
from phase.release.keys import ReleaseKeys, add_signature
from phase.release.lifetimes import Expiry
from phase.release.manifest import Manifest, split_role
from phase.release.pinned import repository_id
from phase.release.roles import TOP, kind
from phase.trust import wire

PLACE = "staged"
BEFORE = "published"
_MAX_METADATA = 5_000_000
_MAX_FILES = wire.MAX_FILES
#: Limit for one round of signing, bytes.
_MAX_TOTAL = 64 << 20


class Carried(NamedTuple):
    """A directory that is carried.

    Attributes:
        staged: role to the metadata to be signed.
        before: role to the metadata that it replaces, verified.
        repository: id of its repository, see `pinned.repository_id`.
    """

    staged: dict[str, Metadata[Any]]
    before: dict[str, Root | Targets]
    repository: str


def load(directory: Path) -> dict[str, Metadata[Any]]:
    """Read a directory of staged metadata.

    Args:
        directory: holds `{role}.json`.

    Returns:
        Role to metadata; empty if there is no such directory.

    Raises:
        RepositoryError: a file in it is not such metadata.
    """
    found = {}
    paths = sorted(directory.glob("*.json"))
    if len(paths) > _MAX_FILES:
        raise RepositoryError(f"{directory} has {len(paths)} files; the limit is {_MAX_FILES}")
    left = _MAX_TOTAL
    for path in paths:
        role = path.name.removesuffix(".json")
        data = _read(path)
        left -= len(data)
        if left < 0:
            raise RepositoryError(f"{directory} has more than {_MAX_TOTAL >> 20} MiB to be signed")
        _parse(role, data, path)
        found[role] = _envelope(data, path)
    return found


def load_carried(directory: Path) -> Carried:
    """Read a directory that is carried; the published metadata in it is verified from its first root.

    Args:
        directory: from `save_carried`.

    Raises:
        RepositoryError: there is nothing to sign, or a file in it does not verify.
    """
    staged = load(directory)
    if not staged:
        raise RepositoryError(f"{directory} holds nothing to sign")
    before: dict[str, Root | Targets] = {}
    place = directory / BEFORE
    if not (place / "1.root.json").exists():
        return Carried(staged, before, _repository_of(staged, directory))
    first = _read(place / "1.root.json")
    for number in range(1, _MAX_FILES):
        path = place / f"{number}.root.json"
        if not path.exists():
            break
        before["root"] = _verified("root", path, [before.get("root")])
        if before["root"].version != number:
            raise RepositoryError(
                f"{path} is root version {before['root'].version}", hint="Export it again."
            )
    root = before["root"]
    if (path := place / "targets.json").exists():
        before["targets"] = _verified("targets", path, [root])
    for role in sorted(set(staged) - set(TOP)):
        if (path := place / f"{role}.json").exists() and "targets" in before:
            before[role] = _verified(role, path, [before["targets"]])
    for role, metadata in staged.items():
        last = before[role].version if role in before else 0
        found = metadata.signed.version
        if found <= last or (role == "root" and found != last + 1):
            raise RepositoryError(
                f"{directory} holds {role} version {found} to be signed, and version {last} as published",
                hint="Export it again.",
            )
    return Carried(staged, before, repository_id(first))


def save(directory: Path, staged: Mapping[str, Metadata[Any]]) -> None:
    """Write staged metadata.

    Raises:
        RepositoryError: it cannot be written.
    """
    try:
        files.make_public(directory)
        for role, metadata in staged.items():
            files.write(directory / f"{role}.json", metadata.to_bytes())
    except OSError as error:
        raise RepositoryError(f"{directory} cannot be written: {error.strerror}") from error


def save_carried(directory: Path, staged: Mapping[str, Metadata[Any]], before: Mapping[str, bytes]) -> None:
    """Write metadata to be signed into a directory to carry; files of an earlier round are removed.

    Args:
        directory: new, empty, or of an earlier round.
        staged: role to metadata.
        before: published files by name: every root, and the metadata that is replaced.

    Raises:
        RepositoryError: the directory holds something else, or cannot be written.
    """
    place = directory / BEFORE
    if place.is_symlink():
        raise RepositoryError(f"{place} is a link", hint="Choose a new directory.")
    try:
        old = sorted(directory.glob("*.json"))
        for path in old:
            _parse(path.name.removesuffix(".json"), _read(path), path)
    except RepositoryError as error:
        raise RepositoryError(
            f"{directory} holds something else than a round of signing: {error.what}",
            hint="Choose a new directory.",
        ) from error
    try:
        for path in [*old, *sorted(place.glob("*.json"))]:
            path.unlink()
        save(directory, staged)
        files.make_public(place)
        for name, data in before.items():
            files.write(place / name, data)
    except OSError as error:
        raise RepositoryError(f"{directory} cannot be written: {error.strerror}") from error


def sign(carried: Carried, keys: ReleaseKeys) -> tuple[list[str], list[tuple[str, str]]]:
    """Add the signatures of the keys at hand that may count.

    Args:
        carried: what is to be signed. A key may count when the present keys or the next ones include it,
            or when neither are known here; the repository decides.
        keys: signers.

    Returns:
        The roles signed; and each role whose key at hand is not one of its keys, with that public key.
    """
    signed, strange = set(), []
    for role, metadata in carried.staged.items():
        known = _keyids(role, carried)
        for signer in keys[kind(role)]:
            if known is not None and signer.public_key.keyid not in known:
                strange.append((role, roles.public(signer.public_key)))
                continue
            add_signature(metadata, signer)
            signed.add(role)
    return sorted(signed), strange


def _keyids(role: str, carried: Carried) -> set[str] | None:
    """The ids of the keys that sign a role, now or next; None if nothing that is carried says so."""
    above = "root" if role in TOP else "targets"
    staged = carried.staged.get(above)
    delegators = [carried.before.get(above), staged.signed if staged else None]
    told = [each for each in delegators if isinstance(each, Root | Targets) and roles.delegates(each, role)]
    return {keyid for each in told for keyid in roles.rule_of(each, role).keyids} if told else None


def summary(role: str, metadata: Metadata[Any], before: Signed | None = None) -> Iterator[str]:
    """A summary of metadata for the person who signs it, in lines.

    Args:
        role: its name.
        metadata: the metadata to be signed.
        before: the metadata that it replaces; `+` and `-` then show the changes.
    """
    signed = metadata.signed
    yield f"{role}, version {signed.version}, holds until {signed.expires:%Y-%m-%d}"
    old: dict[str, roles.Rule] = {}
    if isinstance(signed, Root):
        if isinstance(before, Root):
            old = roles.top_rules(before)
        yield from changes(old, roles.top_rules(signed))
    elif role == "targets":
        if isinstance(before, Targets):
            old = roles.delegated_rules(before)
        yield from changes(old, roles.delegated_rules(signed))
    else:
        manifest = Manifest.from_role(role, signed)
        yield f"  release {manifest.release} of {manifest.channel} for {manifest.arch}"
        if isinstance(before, Targets):
            last = Manifest.from_role(role, before)
            yield f"  in place of {last.release}, version {last.version}"
        days = roles.lifetime(role, signed, Expiry())
        if days != Expiry().release:
            yield f"  renewed for {days:g} days at a time"
        yield f"  command line: {manifest.cmdline or '(empty)'}"
        for name, artifact in sorted(manifest.artifacts.items()):
            yield f"  {name}: {artifact.length} bytes, sha256 {artifact.sha256}"


def changes(old: Mapping[str, roles.Rule], new: Mapping[str, roles.Rule]) -> Iterator[str]:
    """The rules of roles and their changes, in lines.

    Args:
        old: role to its present rule; empty before the first publication.
        new: role to its next rule.
    """
    for role, rule in new.items():
        had = old.get(role)
        line = f"  {rule.threshold} of {len(rule.keys)} sign {role}"
        if had is not None and (had.threshold, len(had.keys)) != (rule.threshold, len(rule.keys)):
            line += f", until now {had.threshold} of {len(had.keys)}"
        yield f"{line}:" if old == {} or had is not None else f"{line}, new:"
        known = {roles.public(key) for key in had.keys} if had else set()
        now = [roles.public(key) for key in rule.keys]
        sign = {True: " ", False: "+" if old else " "}
        yield from (f"   {sign[key in known]}{key}" for key in now)
        yield from (f"   -{key}" for key in sorted(known - set(now)))
    for role in sorted(old.keys() - new.keys()):
        yield f"  {printable(role)} is withdrawn: it is offered no longer"


def _verified(role: str, path: Path, by: Iterable[Root | Targets | None]) -> Root | Targets:
    """Metadata that is signed for these delegators; a first root is signed for itself."""
    data = _read(path)
    signed = _parse(role, data, path)
    metadata = _envelope(data, path)
    delegators = [each for each in by if each is not None] + ([signed] if role == "root" else [])
    for delegator in delegators:
        demand = roles.demand(role, delegator)
        if not roles.delegates(delegator, role) or roles.lack(role, demand, metadata) is not None:
            raise RepositoryError(
                f"{path} is not signed by the keys that were there before",
                hint="Somebody has changed what was carried. Export it again, and compare.",
            )
    return signed


def _repository_of(staged: Mapping[str, Metadata[Any]], directory: Path) -> str:
    root = staged.get("root")
    if root is None or root.signed.version != 1:
        raise RepositoryError(
            f"{directory} does not say what it replaces: {BEFORE}/1.root.json is missing",
            hint="Export it again.",
        )
    return repository_id(root.to_bytes())


def _parse(role: str, data: bytes, path: Path) -> Root | Targets:
    shown = printable(str(path))
    try:
        if role == "root":
            return wire.read(data, Root, name=path.name, max_bytes=_MAX_METADATA)[0]
        if role != "targets":
            split_role(role)
        targets, _ = wire.read(data, Targets, name=path.name, max_bytes=_MAX_METADATA)
        if role == "targets":
            roles.check_delegations(targets)
        return targets
    except ManifestError as error:
        raise RepositoryError(f"{shown} is not metadata that waits for signatures: {error.what}") from error
    except PhaseError as error:
        raise RepositoryError(f"{shown} is damaged: {error.what}") from error


def _envelope(data: bytes, path: Path) -> Metadata[Any]:
    try:
        return Metadata[Any].from_bytes(data)
    except Exception as error:  # the library raises whatever odd input makes it trip over
        raise RepositoryError(
            f"{printable(str(path))} cannot be signed: it names a key of an unknown kind"
        ) from error


def _read(path: Path) -> bytes:
    try:
        with open(files.open_plain(path), "rb") as handle:
            return handle.read(_MAX_METADATA + 1)
    except OSError as error:
        raise RepositoryError(unreadable(printable(str(path)), error)) from error
