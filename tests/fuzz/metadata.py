"""TUF metadata and the remembered floor, as clients and providers read them."""

import atexit
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from phase import trust
from phase.provider import catalog
from phase.provider.errors import RepositoryError
from phase.release.errors import ManifestError
from phase.release.keys import ReleaseKeys
from phase.release.manifest import Manifest
from phase.release.repository import Repository
from phase.trust import wire
from phase.trust.errors import TrustError
from tests.fuzz.publishing import short

Target = Callable[[bytes], None]


NOW = datetime(2027, 1, 1, tzinfo=UTC)


ROLES: dict[str, type[Any]] = {
    "root": Root,
    "timestamp": Timestamp,
    "snapshot": Snapshot,
    "targets": Targets,
    "stable-x86_64": Targets,
}


FILES = {"timestamp": "timestamp.json"}


@cache
def published() -> dict[str, bytes]:
    """A real repository's metadata, to start from."""
    with TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "kernel").write_bytes(b"K" * 100)
        repository = Repository.create(directory / "r", keys=ReleaseKeys.from_seed("fuzz"), now=NOW)
        repository.add("stable", "x86_64", {"kernel": directory / "kernel"}, release="1", cmdline="quiet")
        repository.publish()
        return repository.metadata()


def role(name: str) -> Target:
    """TUF metadata of a role: read, signatures looked at, the manifest taken out."""

    def run(data: bytes) -> None:
        try:
            signed, opened = wire.read(data, ROLES[name], name=name, max_bytes=1 << 20)
            assert opened.payload
            if isinstance(signed, Targets):
                Manifest.from_role("stable-x86_64", signed)
        except (TrustError, ManifestError) as error:
            short(error)

    return run


def refresh(name: str) -> Target:
    """A whole refresh with one file replaced: it may be refused, never believed if it was changed."""

    def run(data: bytes) -> None:
        files = published()
        file = FILES.get(name, f"1.{name}.json")
        offered = files | {file if name != "root" else "2.root.json": data}

        def get(asked: str, limit: int) -> bytes:
            if asked not in offered:
                raise trust.NotFoundError(asked)
            return offered[asked][: limit + 1]

        try:
            found = trust.refresh(files["1.root.json"], get, channel="stable", arch="x86_64", now=NOW)
        except TrustError as error:
            short(error)
        else:
            assert signed_part(data) == signed_part(files[file])
            assert found.manifest.release == "1"

    return run


def cached(name: str) -> Target:
    """A whole refresh from an honest provider, with one file of its own cache replaced: it costs a fetch."""

    def run(data: bytes) -> None:
        files = published()
        file = FILES.get(name, f"1.{name}.json")

        def get(asked: str, limit: int) -> bytes:
            if asked not in files:
                raise trust.NotFoundError(asked)
            return files[asked][: limit + 1]

        found = trust.refresh(
            files["1.root.json"],
            get,
            channel="stable",
            arch="x86_64",
            now=NOW,
            cached=files | {file: data},
        )
        assert found.manifest.release == "1"
        for kept, content in found.metadata.items():
            assert signed_part(content) == signed_part(files[kept])

    return run


def served(name: str) -> Target:
    """A repository with one file replaced, as a provider reads it: it may only refuse."""

    def run(data: bytes) -> None:
        file = FILES.get(name, f"1.{name}.json")
        directory = on_disk(name)
        (directory / "metadata" / file).write_bytes(data)
        try:
            found = catalog.load(directory)
        except RepositoryError as error:
            short(error)
            return
        for why in found.refused.values():
            assert len(why) < 1000
        for digest, lengths in found.blobs.items():
            assert len(digest) == 64
            assert min(lengths) >= 0
        for release in found.releases.values():
            for text in (release.channel, release.arch):
                assert text.isascii()
                assert not set(text) & set("/\0\r\n ")

    return run


@cache
def on_disk(name: str) -> Path:
    """A repository of a target's own, for as long as this process lives."""
    directory = Path(mkdtemp(prefix="phase-fuzz-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    (directory / "metadata").mkdir()
    for file, data in published().items():
        (directory / "metadata" / file).write_bytes(data)
    return directory


def signed_part(data: bytes) -> object:
    """What a signature is over; another order or spacing is the same."""
    return json.loads(data)["signed"]


def floor(data: bytes) -> None:
    """The remembered floor, as a cache disk holds it."""
    with TemporaryDirectory() as name:
        path = Path(name, "floor.json")
        path.write_bytes(data)
        try:
            trust.floor.load(path)
        except TrustError as error:
            short(error)
