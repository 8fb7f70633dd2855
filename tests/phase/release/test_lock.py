"""Who waits for whom, and what is said meanwhile."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from fixtures import artifacts
from phase.release import lock
from phase.release.errors import RepositoryError
from phase.release.keys import LOCAL_COUNTS, ONLINE, ReleaseKeys
from phase.release.repository import Repository

WORDS = "correct horse"
SEALED = ("root", "targets", "release")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository; keys that sign unattended have no passphrase."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PHASE_RELEASE_PASSPHRASE", raising=False)
    (tmp_path / "vmlinuz").write_bytes(artifacts.kernel())
    keys = ReleaseKeys.generate(LOCAL_COUNTS)
    for name, roles, words in (("keys", SEALED, WORDS), ("online", ONLINE, None)):
        ReleaseKeys({role: keys[role] for role in roles}).save(
            tmp_path / name, passphrase=words, cost="interactive"
        )
    (signer,) = ReleaseKeys.generate({"timestamp": 1})["timestamp"]
    (tmp_path / "timestamp.pub").write_text(f"phase-release-public-v1 timestamp {signer.public_hex}\n")
    repository = Repository.create(tmp_path / "repo", keys=keys)
    repository.add("stable", "x86_64", {"kernel": tmp_path / "vmlinuz"}, release="1")
    repository.publish()
    return tmp_path


def run(words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "phase", "release", *words.split()],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "add repo stable x86_64 --kernel vmlinuz --release 2",
        "promote repo stable testing",
        "rotate repo --threshold root=1",
        "revoke repo {timestamp} --public timestamp.pub",
        "renew repo targets",
        "withdraw repo stable x86_64",
        "sign repo",
    ],
)
def test_a_passphrase_prompt_holds_no_lock(desk: Path, words: str) -> None:
    public = json.loads(Path("online/timestamp.json").read_bytes())["public"]
    run("add repo stable x86_64 --kernel vmlinuz --release 2 --keys online")  # waits
    child = pexpect.spawn(
        sys.executable,
        ["-m", "phase", "release", *words.format(timestamp=public[:16]).split(), "--keys", "keys"],
        timeout=30,
        encoding="utf-8",
    )
    child.expect("Passphrase of keys/")
    assert run("refresh repo --keys online") == ""
    child.close(force=True)


@pytest.mark.parametrize("words", ["rotate repo --threshold root=1 --keys online", "discard repo"])
def test_a_question_holds_no_lock(desk: Path, words: str) -> None:
    run("add repo stable x86_64 --kernel vmlinuz --release 2 --keys online")  # waits
    arguments = ["-m", "phase", "release", *words.split()]
    child = pexpect.spawn(sys.executable, arguments, timeout=30, encoding="utf-8")
    child.expect(r"\[y/N\]")
    assert run("refresh repo --keys online") == ""
    child.sendline("y")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_waiting_for_the_lock_is_said(desk: Path) -> None:
    with open(desk / "repo/.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write("process 4711 on build\x1b[31m1\n")
        held.truncate()
        held.flush()
        waiting = subprocess.Popen(
            [sys.executable, "-m", "phase", "release", "refresh", "repo", "--keys", "online"],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert waiting.stderr is not None
        line = waiting.stderr.readline()
        assert line == "phase: process 4711 on build [31m1 signs in repo; waiting for 60 s at most\n"
        fcntl.flock(held, fcntl.LOCK_UN)
        assert waiting.wait(30) == 0
        waiting.stderr.close()


@pytest.mark.timeout(20)
def test_a_lock_is_waited_for_with_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LOCK_SECONDS", 0.2)
    said: list[str] = []
    with (
        lock.repository(tmp_path / "repo", said.append),
        pytest.raises(RepositoryError, match=f"process {os.getpid()} on .* has been signing in"),
        lock.repository(tmp_path / "repo", said.append),
    ):
        pass
    assert len(said) == 1
    with lock.repository(tmp_path / "repo", said.append):
        assert len(said) == 1


@pytest.mark.timeout(20)
def test_who_has_a_lock_is_said_in_words_that_steer_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "LOCK_SECONDS", 0.2)
    (tmp_path / "lock").write_bytes(b"process 1\x1b[2J\nphase: all is well\xff" * 100)
    said: list[str] = []
    with (tmp_path / "lock").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(RepositoryError) as caught, lock.held(tmp_path / "lock", said.append):
            pass
    assert [line.isprintable() and len(line) < 400 for line in (*said, str(caught.value))] == [True, True]


@pytest.mark.timeout(20)
def test_a_lock_is_no_link_and_no_pipe(tmp_path: Path) -> None:
    """Whoever may write to the directory could keep us waiting, or have another file emptied."""
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo/.lock").symlink_to(tmp_path / "victim")
    with (
        pytest.raises(RepositoryError, match="not a regular file"),
        lock.repository(tmp_path / "repo", print),
    ):
        pass
    (tmp_path / "repo/.lock").unlink()
    os.mkfifo(tmp_path / "repo/.lock")
    with (
        pytest.raises(RepositoryError, match="not a regular file"),
        lock.repository(tmp_path / "repo", print),
    ):
        pass
    assert (tmp_path / "victim").read_text() == "precious"
