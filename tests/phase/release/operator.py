"""An operator with a repository, its keys in several places, and machines that saw it at several times.

Whatever the operator does, in whatever order: after a command that ends well, each machine boots or is told
the truth; after one that is refused, nothing has changed; after one that was killed, it is the old or the
new.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from fixtures import artifacts
from phase import trust
from phase.cli import _release
from phase.cli.release import command
from phase.release import check
from phase.release.errors import RepositoryError
from phase.release.keys import ReleaseKeys

CHANNELS = ("stable", "testing", "beta")
START = datetime(2027, 1, 1, tzinfo=UTC)
#: Directories of keys, and whose they are at the beginning.
PLACES = {
    "holder1": {"root": 1},
    "holder2": {"root": 1},
    "holder3": {"root": 1},
    "signer": {"targets": 1, "release": 1},
    "online": {"snapshot": 1, "timestamp": 1},
}
OFFLINE = ("holder1", "holder2", "holder3", "signer")
HALF_A_YEAR = timedelta(days=182)


class KilledError(BaseException):
    """The process is killed here."""


class Machine:
    """What one machine remembers."""

    def __init__(self, root: bytes) -> None:
        self.root = root
        self.floor = trust.Floor()
        self.seen = START

    def asks(self, directory: Path, channel: str, now: datetime) -> str | Exception:
        """The release it boots, or why it does not."""
        get = check.reader(directory)
        try:
            found = trust.refresh(self.root, get, channel=channel, arch="x86_64", now=now, floor=self.floor)
        except (trust.TrustError, RepositoryError) as error:
            return error
        self.floor = found.floor
        self.seen = now
        return found.manifest.release


class Operator:
    """Does what operators do; checks what machines make of it. Works in the present directory.

    Args:
        patch: for the clock, and for kills.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self.now = START
        #: How far the publisher's own clock is off.
        self.off = timedelta()
        self.number = 0
        self.history: list[str] = []
        #: The repository was put back from a backup, and machines know newer ones.
        self.rolled_back = False
        patch.setattr(_release, "now", self._clock)
        publics = []
        for place, counts in PLACES.items():
            for path in ReleaseKeys.generate(counts).save(Path(place)):
                public = Path(path).with_suffix(".pub")
                publics.append(self._public(Path(path), public))
        Path("kernel").write_bytes(artifacts.kernel(size=2048))
        options = " ".join(f"--public {each}" for each in publics)
        keys = " ".join(f"--keys {place}" for place in PLACES)
        self.run(f"init repo {options} --threshold root=2 {keys}", expect=0)
        self.root = Path("repo/metadata/1.root.json").read_bytes()
        self.last = Machine(self.root)
        self.sleeper = Machine(self.root)
        self.releases: dict[str, str] = {}
        for channel in CHANNELS[:2]:
            self.add(channel, keys, "")
        shutil.copytree("repo", "backup")

    def _clock(self, seen: float = 0.0) -> datetime:
        return self.now + self.off

    def _public(self, key: Path, public: Path) -> Path:
        import msgspec

        stored = msgspec.json.decode(key.read_bytes())
        public.write_text(f"phase-release-public-v1 {stored['role']} {stored['public']}\n")
        return public

    # What operators do. `keys` are options.

    def add(self, channel: str, keys: str, more: str) -> None:
        self.number += 1
        Path("kernel").write_bytes(artifacts.kernel(size=2048, fill=b"%d " % self.number))
        self.run(
            f"add repo {channel} x86_64 --kernel kernel --release {self.number} {more} {keys}",
            touches=[channel],
        )

    def promote(self, channel: str, to: str, keys: str) -> None:
        self.run(f"promote repo {channel} {to} {keys}", touches=[to])

    def withdraw(self, channel: str, keys: str) -> None:
        self.run(f"withdraw repo {channel} x86_64 {keys}", touches=[channel])

    def new_key(self, role: str, place: str) -> str:
        """A new key of a role in a place; its public half."""
        self.number += 1
        path = Path(place, f"{role}-{self.number}.json")
        self.run(f"key {path} --role {role} --plain", expect=0)
        return str(path.with_suffix(".pub"))

    def lose(self, place: str, which: int) -> None:
        """A key is lost."""
        there = sorted(path for path in Path(place).glob("*.json") if path.name != "pinned.json")
        if there:
            lost = there[which % len(there)]
            self.history.append(f"lose {lost}")
            lost.unlink()

    def back_up(self) -> None:
        self.history.append("back up")
        _replace("backup", "repo")

    def come_from_backup(self) -> None:
        self.history.append("come from backup")
        _replace("repo", "backup")
        self.rolled_back = True

    def restore(self, keys: str) -> None:
        if self.run(f"restore repo {keys}", touches=CHANNELS) == 1:
            # A lost root cannot be made up for: it comes from a mirror, as the message says.
            for path in Path("mirror/metadata").glob("*.root.json"):
                shutil.copy(path, "repo/metadata")
            self.run(f"restore repo {keys}", touches=CHANNELS)

    def offline_round(self, places: list[str], keys: str, more: str) -> None:
        """What waits is carried to who holds the keys, and back."""
        if self.run("sign repo --export stick") != 0 or not Path("stick").exists():
            return
        for place in places:
            self.run(f"sign stick --keys {place}")
        self.run(f"sign repo --import stick {keys} {more}", touches=CHANNELS)

    def pass_time(self, days: int) -> None:
        self.history.append(f"{days} days")
        self.now += timedelta(days=days)

    def run(
        self,
        words: str,
        *,
        expect: int | None = None,
        touches: Any = (),
        killed_at: int | None = None,
    ) -> int:
        """Run a command, and see what machines make of it; how it ends, or -9."""
        self.history.append(words if killed_at is None else f"{words} (killed at {killed_at})")
        # What was killed is completed by the next command, also by one that is refused then.
        healing = Path("repo/publishing").exists()
        touches = CHANNELS if healing else touches
        before = _content()
        boots = self._boots() if hasattr(self, "last") else {}
        try:
            with _killed(self._patch, killed_at):
                done = CliRunner().invoke(command, words.split(), input="y\n" * 9)
        except KilledError:
            self._settled(touches, boots)
            return -9
        code = _ending(done)
        assert code in (0, 1, 3), (self.history[-12:], done.output, done.exception)
        assert expect in (None, code), (self.history[-12:], done.output, done.exception)
        if code == 1:
            assert healing or _content() == before, (self.history, done.exception)
        else:
            if words.startswith("restore"):
                self.rolled_back = False
            self._settled(touches, boots)
        return code

    def _settled(self, touches: Any, before: dict[str, Any]) -> None:
        """Every machine boots or is told the truth; and what a command does not touch is as it was."""
        if not Path("repo/metadata/timestamp.json").exists() or not hasattr(self, "last"):
            return
        if not self.rolled_back:
            _replace("mirror", "repo")
        after = self._boots()
        for channel in CHANNELS:
            if channel not in touches:
                assert _same(before[channel], after[channel]), (self.history, channel, before, after)
        machines = [Machine(self.root), self.last]
        if self.now - self.sleeper.seen > HALF_A_YEAR:
            machines.append(self.sleeper)
        for machine in machines:
            for channel in CHANNELS:
                found = machine.asks(Path("repo"), channel, self.now)
                assert isinstance(found, str) or self._is_truth(found), (self.history, channel, found)

    def _is_truth(self, error: Exception) -> bool:
        """Whether an error says what is so: it has expired, or there is none."""
        if self.rolled_back and isinstance(error, (trust.RollbackError, trust.SignatureError)):
            return True
        if isinstance(error, trust.WrongTargetError):
            return "no release of" in str(error)
        return isinstance(error, trust.ExpiredError) and self._expired()

    def _expired(self) -> bool:
        try:
            judged = check.judge(check.reader(Path("repo")), self.root)
        except trust.TrustError:
            return self.rolled_back
        return bool(judged.expired(self.now))

    def _boots(self) -> dict[str, Any]:
        return {channel: Machine(self.root).asks(Path("repo"), channel, self.now) for channel in CHANNELS}


def _same(before: str | Exception, after: str | Exception) -> bool:
    """Whether a machine boots what it booted, or boots again what had expired."""
    if isinstance(before, trust.ExpiredError):
        return True
    return before == after if isinstance(before, str) else type(before) is type(after)


def _ending(done: Result) -> int:
    from phase.errors import PhaseError

    if done.exception is None or isinstance(done.exception, SystemExit):
        return done.exit_code
    if isinstance(done.exception, KilledError):
        raise done.exception
    if isinstance(done.exception, (PhaseError, click.ClickException)):
        return 1
    raise done.exception


def _content() -> dict[str, str]:
    """What machines and signers see of the repository."""
    return {
        str(path): sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path("repo").rglob("*.json"))
        if not {"blobs", "publishing.new"} & set(path.parts)  # what a kill leaves is swept by the next
    }


def _replace(target: str, source: str) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


@contextlib.contextmanager
def _killed(patch: pytest.MonkeyPatch, at: int | None) -> Iterator[None]:
    """Let the process be killed before the Nth change to a directory."""
    if at is None:
        yield
        return
    left = at

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def once(*arguments: Any, **more: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise KilledError
            return call(*arguments, **more)

        return once

    with patch.context() as inner:
        for name in ("replace", "rename", "unlink", "mkdir", "link"):
            inner.setattr(os, name, counted(getattr(os, name)))
        yield
