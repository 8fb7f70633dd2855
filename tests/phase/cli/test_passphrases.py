"""Passphrases from files, pipes, variables and a terminal."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WORDS = "correct horse"
VARIABLE = "PHASE_RELEASE_PASSPHRASE"


def release(
    words: str, directory: Path, *, stdin: bytes = b"", secret: str | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run `phase release ...` in a directory, without a terminal."""
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    environment["PHASE_RELEASE_COST"] = "interactive"
    if secret is not None:
        environment[VARIABLE] = secret
    return subprocess.run(
        [sys.executable, "-m", "phase", "release", *words.split()],
        cwd=directory,
        env=environment,
        input=stdin,
        capture_output=True,
        timeout=60,
    )


def refused(done: subprocess.CompletedProcess[bytes]) -> str:
    """The one line that a refused command said."""
    said = done.stderr.decode()
    assert (done.returncode, said.count("\n")) == (1, 1), said
    return said


@pytest.mark.parametrize("secret", ["", "\n", "  \t \r\n"])
@pytest.mark.parametrize("command", ["key made/root-1.json --role root", "init repo --new-keys made"])
def test_an_empty_passphrase_makes_no_key(tmp_path: Path, secret: str, command: str) -> None:
    (tmp_path / "secret").write_text(secret)
    for done in (
        release(command, tmp_path, secret=secret),
        release(f"{command} --passphrase-file secret", tmp_path),
    ):
        assert "is empty" in refused(done)
        assert "--plain" in refused(done)
    assert not (tmp_path / "made").exists()


def test_plain_is_the_only_way_to_a_key_in_the_clear(tmp_path: Path) -> None:
    assert release("key a/root-1.json --role root --plain", tmp_path, secret="").returncode == 0
    assert "seed" in json.loads((tmp_path / "a/root-1.json").read_bytes())
    (tmp_path / "secret").write_text(WORDS)
    both = release("key b/root-1.json --role root --plain --passphrase-file secret", tmp_path)
    assert both.returncode == 2
    assert not (tmp_path / "b").exists()


def test_a_pipe_as_passphrase_file_opens_many_keys(tmp_path: Path) -> None:
    """Two root keys, and the rest: each of them is opened, the pipe is read once."""
    line = f"{WORDS}\n".encode()
    piped = "--passphrase-file /dev/stdin"
    done = release(f"init repo --new-keys keys {piped}", tmp_path, stdin=line)
    assert done.returncode == 0, done.stderr
    done = release(f"rotate repo --yes --threshold root=3 --keys keys {piped}", tmp_path, stdin=line)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "repo/metadata/2.root.json").exists()


def test_the_end_of_the_line_is_no_part_of_it_wherever_it_comes_from(tmp_path: Path) -> None:
    assert release("init repo --new-keys keys", tmp_path, secret=f"{WORDS}\n").returncode == 0
    for end in ("", "\n", "\r\n"):
        (tmp_path / "words").write_bytes(f"{WORDS}{end}".encode())
        (tmp_path / "repo").rename(tmp_path / "old")
        done = release("init repo --keys keys --passphrase-file words", tmp_path)
        assert done.returncode == 0, done.stderr
        (tmp_path / "old").rename(tmp_path / f"old{len(end)}")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xef\xbb\xbfcorrect horse\n", "byte order mark"),
        ("correct horse\n".encode("utf-16"), "UTF-16"),
        ("correct horse\n".encode("utf-16-le"), "UTF-16"),
        (b"correct h\xf6rse\n", "not UTF-8"),
        (b"correct horse\nbattery staple\n", "several lines"),
        (b"correct horse\x1b[31m\n", "cannot be printed"),
        (b"x" * 1025, "the limit is 1024 characters"),
        (b"x" * 5000, "the limit is 4096 bytes"),
    ],
)
def test_what_is_no_passphrase_is_said(tmp_path: Path, data: bytes, message: str) -> None:
    assert release("key keys/root-1.json --role root", tmp_path, secret=WORDS).returncode == 0
    (tmp_path / "words").write_bytes(data)
    for command in ("key new/root-1.json --role root", "init repo --keys keys"):
        assert message in refused(release(f"{command} --passphrase-file words", tmp_path))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("secret", ["correct\nhorse", "correct h\udcf6rse"])
def test_what_is_no_passphrase_in_the_variable_is_said(tmp_path: Path, secret: str) -> None:
    said = refused(release("key keys/root-1.json --role root", tmp_path, secret=secret))
    assert VARIABLE in said
    assert "damaged" not in said


def test_a_public_half_is_written_again_without_a_passphrase(tmp_path: Path) -> None:
    made = release("key keys/root-alice.json --role root", tmp_path, secret=WORDS)
    public = (tmp_path / "keys/root-alice.pub").read_bytes()
    (tmp_path / "keys/root-alice.pub").unlink()
    again = release("key keys/root-alice.json --role root --existing", tmp_path)
    assert (again.returncode, again.stdout) == (0, made.stdout), again.stderr
    assert (tmp_path / "keys/root-alice.pub").read_bytes() == public
    assert release("key keys/root-alice.json --role root --existing", tmp_path).returncode == 0
    (tmp_path / "keys/root-bob.pub").write_bytes(public)
    assert "is there already" in refused(release("key keys/root-bob.json --role root --plain", tmp_path))
    assert not (tmp_path / "keys/root-bob.json").exists()
    (tmp_path / "keys/root-alice.pub").write_text("another's")
    said = refused(release("key keys/root-alice.json --role root --existing", tmp_path))
    assert "another key's" in said


def test_too_little_memory_for_a_passphrase_is_said(tmp_path: Path) -> None:
    """A small machine, and a key of a large one: the passphrase is right."""
    environment = os.environ | {VARIABLE: WORDS}
    phase = f"{sys.executable} -m phase release"
    made = release("key keys/root-1.json --role root --cost moderate", tmp_path, secret=WORDS)
    assert made.returncode == 0, made.stderr
    for words in ("init repo --keys keys", "key new/root-2.json --role root --cost moderate"):
        done = subprocess.run(
            ["sh", "-c", f"ulimit -v 260000; exec {phase} {words}"],
            cwd=tmp_path, env=environment, capture_output=True, timeout=60,
        )  # fmt: skip
        assert "takes 256 MiB of memory" in refused(done)
