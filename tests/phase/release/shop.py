"""A repository as one operator keeps it with `phase release`, and what machines make of it."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from fixtures import artifacts
from phase import trust
from phase.cli import cli
from phase.release import check
from phase.release.keys import ReleaseKeys

ROOT = Path("repo/metadata/1.root.json")


class Shop:
    """Commands in the present directory: `repo` is the repository, `keys` all keys, in the clear."""

    def __init__(self) -> None:
        self.keys = ReleaseKeys.generate(
            {"root": 3, "timestamp": 1, "snapshot": 1, "targets": 1, "release": 1}
        )
        self.keys.save(Path("keys"))
        Path("kernel").write_bytes(artifacts.kernel())
        self.run("init repo --keys keys")

    def invoke(self, words: str, *, says: str = "") -> Result:
        return CliRunner().invoke(cli, ["release", *words.split()], input=says)

    def run(self, words: str, *, ends: int = 0, says: str = "") -> str:
        """Run a command that ends so; what it says."""
        done = self.invoke(words, says=says)
        assert done.exit_code == ends, (words, done.output, done.exception)
        return done.output

    def refused(self, words: str, *, says: str = "") -> str:
        """Run a command that is refused and changes nothing; why it is."""
        before = dict(_content(Path("repo")))
        done = self.invoke(words, says=says)
        assert done.exit_code == 1, (words, done.output)
        assert dict(_content(Path("repo"))) == before, words
        return str(done.exception)

    def add(self, release: str, channel: str = "stable", more: str = "") -> str:
        Path("kernel").write_bytes(artifacts.kernel(fill=release.encode()))
        return self.run(
            f"add repo {channel} x86_64 --kernel kernel --release {release} {more or '--keys keys'}"
        )

    def hand_over(self, name: str, *roles: str) -> str:
        """Give some keys to a directory of their own; its option."""
        ReleaseKeys({role: self.keys[role] for role in roles}).save(Path(name))
        return f"--keys {name}"

    def now(self) -> datetime:
        """The operator's time, and the machine's."""
        return datetime.now(UTC)

    def machine(self, channel: str = "stable", **more: Any) -> trust.Refreshed:
        """What a machine with the first root makes of it."""
        now = more.pop("now", self.now())
        root = ROOT.read_bytes()
        return check.verify(Path("repo"), root, channel=channel, arch="x86_64", now=now, **more)

    def boots(self, channel: str = "stable") -> str:
        """The release that a machine with the first root boots."""
        return self.machine(channel).manifest.release


def _content(directory: Path) -> Iterator[tuple[str, str]]:
    """What clients and signers see: path and hash."""
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.name != ".lock" and "blobs" not in path.parts:
            yield str(path), sha256(path.read_bytes()).hexdigest()


def change(path: str, **fields: Any) -> None:
    """Change the signed part of metadata; its signatures hold no longer."""
    document = json.loads(Path(path).read_bytes())
    document["signed"].update(fields)
    Path(path).write_text(json.dumps(document))
