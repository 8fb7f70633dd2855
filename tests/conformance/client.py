"""The client the TUF project's conformance suite drives: `phase.trust`, and files and HTTP around it.

Phase itself asks for one role of one level and knows Ed25519. The suite asks for any target in any
graph of delegations, and for keys of other kinds; what it takes to search and to verify those is
here, what is believed is decided by `phase.trust`.
"""

import argparse
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import new
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import KEY_FOR_TYPE_AND_SCHEME, Signature, SSlibKey
from tuf.api.metadata import TargetFile, Targets

from phase import files
from phase.trust import NotFoundError, PinError, SizeError, TrustedState, TrustError
from phase.trust import floor as floors
from phase.trust.keys import VerifyingKey

#: Roles looked at for one target at most.
MAX_ROLES = 32
#: What is remembered; the suite takes every name with `.json` for metadata.
FLOOR = "floor"


class OpenKey(SSlibKey, VerifyingKey):
    """RSA and ECDSA keys, verified by the library and `cryptography`."""

    @property
    def raw(self) -> bytes:
        """The public key's text."""
        return str(self.keyval["public"]).strip().encode()

    def has_signed(self, signature: object, data: bytes) -> bool:
        """Whether a signature, hex, is this key's over `data`."""
        try:
            self.verify_signature(Signature(self.keyid, str(signature)), data)
        except UnverifiedSignatureError:
            return False
        return True


for kind in (
    ("rsa", "rsassa-pss-sha256"),
    ("ecdsa", "ecdsa-sha2-nistp256"),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256"),
):
    KEY_FOR_TYPE_AND_SCHEME[kind] = OpenKey


class Client:
    """One run: refreshes, then perhaps looks for targets.

    Args:
        directory: what is trusted, one file per role.
        url: of the repository's metadata.
    """

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        self.url = url
        self.now = datetime.now(UTC)
        self.state = self.start()

    def start(self) -> TrustedState:
        """The trust the last run ended with."""
        root = (self.directory / "root.json").read_bytes()
        return TrustedState(root, now=self.now, floor=floors.load(self.directory / FLOOR))

    def get(self, name: str, limit: int) -> bytes:
        """Ask for a metadata file."""
        return download(f"{self.url}/{quote(name, '')}", limit)

    def kept(self, role: str) -> bytes | None:
        """A role as it was trusted last."""
        path = self.directory / f"{quote(role, '')}.json"
        return path.read_bytes() if path.exists() else None

    def keep(self, role: str, data: bytes) -> None:
        """Remember what is trusted now, with the versions below which nothing is."""
        files.write(self.directory / f"{quote(role, '')}.json", data)
        floors.save(self.directory / FLOOR, self.state.new_floor())

    def refresh(self) -> Targets:
        """Sections 5.3 to 5.6 of the specification, for the top-level roles."""
        limits = self.state.policy
        for _ in range(limits.max_rotations):
            try:
                data = self.get(f"{self.state.root.version + 1}.root.json", limits.max_root)
            except NotFoundError:
                break
            self.state.update_root(data)
            self.keep("root", data)
        self.update_timestamp()
        pin = self.state.snapshot_pin
        self.update("snapshot", pin.version, limits.max_snapshot, self.state.update_snapshot)
        pin = self.state.meta_pin("targets")
        return self.update("targets", pin.version, limits.max_targets, self.state.update_targets)

    def update_timestamp(self) -> None:
        """Section 5.4; of two with one version the one that was there first counts (5.4.3.1)."""
        before = self.state.floor
        data = self.get("timestamp.json", self.state.policy.max_timestamp)
        fresh = self.state.update_timestamp(data)
        kept = self.kept("timestamp")
        if kept is not None and self.state.floor == before and fresh.version == before.timestamp:
            self.state = self.start()
            self.state.update_timestamp(kept)
            return
        self.keep("timestamp", data)

    def update(self, role: str, version: int, limit: int, take: Any) -> Targets:
        """Take a role from what is kept, if that is believed still, else from the repository."""
        kept = self.kept(role)
        if kept is not None:
            try:
                found: Targets = take(kept)
            except TrustError:
                pass
            else:
                floors.save(self.directory / FLOOR, self.state.new_floor())
                return found
        data = self.get(f"{version}.{role}.json", limit)
        found = take(data)
        self.keep(role, data)
        return found

    def find(self, path: str, targets: Targets) -> TargetFile:
        """Section 5.6.7: the first role, depth first, that describes the target."""
        seen: set[str] = set()
        for found in self.visit("targets", targets, path, seen):
            if path in found.targets:
                return found.targets[path]
        raise NotFoundError(f"no role has {path}")

    def visit(self, name: str, targets: Targets, path: str, seen: set[str]) -> Iterator[Targets]:
        """A role, then those it delegates the path to; each verified by who leads to it."""
        seen.add(name)
        yield targets
        if path in targets.targets or targets.delegations is None:
            return
        for role, terminating in targets.delegations.get_roles_for_target(path):
            if role not in seen and len(seen) < MAX_ROLES:
                pin = self.state.meta_pin(role)

                def take(data: bytes, role: str = role) -> Targets:
                    return self.state.update_delegated(role, data, by=targets)

                limit = self.state.policy.max_targets
                found = self.update(role, pin.version, limit, take)
                yield from self.visit(role, found, path, seen)
            if terminating:
                raise NotFoundError(f"{role} has the last word on {path}")


def fetch_target(url: str, directory: Path, target: TargetFile) -> None:
    """Download a target, if it is not there already."""
    place = directory / quote(target.path, "")
    algorithm, digest = next(iter(target.hashes.items()))
    if place.exists() and new(algorithm, place.read_bytes()).hexdigest() == digest:
        return
    folder, _, name = target.path.rpartition("/")
    where = f"{folder}/{digest}.{name}" if folder else f"{digest}.{name}"
    data = download(f"{url}/{quote(where)}", target.length)
    if len(data) != target.length:
        raise SizeError(f"{target.path} has {len(data)} bytes, signed for {target.length}")
    for algorithm, digest in target.hashes.items():
        if new(algorithm, data).hexdigest() != digest:
            raise PinError(f"{target.path} has not the signed {algorithm}")
    files.write(place, data)


def download(url: str, limit: int) -> bytes:
    """GET, bounded."""
    try:
        with urlopen(url, timeout=30) as answer:  # the suite's own server
            data: bytes = answer.read(limit + 1)
    except HTTPError as error:
        raise NotFoundError(f"{url}: {error.code}") from error
    if len(data) > limit:
        raise SizeError(f"{url} has more than {limit} bytes")
    return data


def main() -> int:
    """What the suite calls: CLIENT-CLI.md there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--metadata-url")
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--target-name", action="append", default=[])
    parser.add_argument("--target-dir", type=Path)
    parser.add_argument("--target-base-url")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("trusted_root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    given = parser.parse_args()
    if given.command == "init":
        files.write(given.metadata_dir / "root.json", given.trusted_root.read_bytes())
        return 0
    try:
        client = Client(given.metadata_dir, given.metadata_url.rstrip("/"))
        targets = client.refresh()
        for name in given.target_name if given.command == "download" else ():
            fetch_target(given.target_base_url.rstrip("/"), given.target_dir, client.find(name, targets))
    except TrustError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
