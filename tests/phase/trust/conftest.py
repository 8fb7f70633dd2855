"""A publisher whose every file can be forged, and signed again with any keys."""

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import pytest
from securesystemslib.formats import encode_canonical

from phase import trust
from phase.release.keys import ReleaseKeys, ReleaseSigner
from phase.release.repository import Repository

NOW = datetime(2027, 1, 1, tzinfo=UTC)
Signed = dict[str, Any]


class Publisher:
    """Metadata in memory, first as a real repository has published it."""

    def __init__(self, directory: Path, keys: ReleaseKeys) -> None:
        self.keys = keys
        self.directory = directory
        self.repository = Repository.create(directory / "r", keys=keys, now=NOW)
        (directory / "kernel").write_bytes(b"K" * (1 << 20) + b"k")
        (directory / "initramfs").write_bytes(b"I")
        for arch in ("x86_64", "arm64"):
            self.add(arch)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, int]] = []
        self.publish()
        self.root = self.files["1.root.json"]

    def add(self, arch: str, release: str = "1.0.0") -> None:
        artifacts = {name: self.directory / name for name in ("kernel", "initramfs")}
        self.repository.add("stable", arch, artifacts, cmdline="quiet", release=release)

    def publish(self) -> None:
        self.repository.publish()
        self.files |= self.repository.metadata()

    def get(self, name: str, max_bytes: int) -> bytes:
        """What a provider answers; a hostile one may well answer more than was asked for."""
        self.asked.append((name, max_bytes))
        if name not in self.files:
            raise trust.NotFoundError(f"no {name}")
        return self.files[name]

    def refresh(self, **changed: Any) -> trust.Refreshed:
        arguments: dict[str, Any] = {"channel": "stable", "arch": "x86_64", "now": NOW} | changed
        return trust.refresh(arguments.pop("root", self.root), self.get, **arguments)

    def current(self, role: str) -> str:
        """The file name of a role's newest version."""
        if role == "timestamp":
            return "timestamp.json"
        versions = [int(name.split(".")[0]) for name in self.files if name.endswith(f".{role}.json")]
        return f"{max(versions)}.{role}.json"

    def signed(self, role: str) -> Signed:
        found: Signed = json.loads(self.files[self.current(role)])["signed"]
        return found

    def forge(
        self,
        role: str,
        change: Callable[[Signed], object],
        *,
        signers: Iterable[ReleaseSigner] | None = None,
        name: str = "",
        repin: bool = True,
    ) -> None:
        """Change a role's signed part; sign it, and all above it, again."""
        name = name or self.current(role)
        signed = json.loads(self.files[self.current(role)])["signed"]
        change(signed)
        kind = role if role in ("root", "timestamp", "snapshot", "targets") else "release"
        self.files[name] = sign(signed, self.keys[kind] if signers is None else signers)
        if repin and role not in ("root", "timestamp"):
            parent = "timestamp" if role == "snapshot" else "snapshot"
            data = self.files[name]

            def pin(above: Signed) -> None:
                pinned = above["meta"][f"{role}.json"]
                pinned |= {"length": len(data), "hashes": {"sha256": sha256(data).hexdigest()}}

            self.forge(parent, pin)


def sign(signed: Signed, signers: Iterable[ReleaseSigner]) -> bytes:
    payload = str(encode_canonical(signed)).encode()
    signatures = [signer.sign(payload).to_dict() for signer in signers]
    return json.dumps({"signed": signed, "signatures": signatures}).encode()


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path, ReleaseKeys.from_seed("trust tests"))


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture
def later() -> Callable[[float], datetime]:
    return lambda days: NOW + timedelta(days=days)


class Sign(Protocol):
    def __call__(self, signed: Signed, signers: Iterable[ReleaseSigner]) -> bytes: ...


@pytest.fixture(name="sign")
def sign_again() -> Sign:
    return sign
