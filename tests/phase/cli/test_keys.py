"""Keys at the command line: new passphrases, an `init` that was interrupted, pipes, what is said."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fixtures import artifacts
from phase.cli import cli
from phase.errors import PhaseError
from phase.release import check
from phase.release import keys as release_keys
from phase.release.errors import RepositoryError
from phase.release.keys import ReleaseKeys
from tests.phase.release.shop import ROOT, Shop

FAST = "--cost interactive"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PHASE_RELEASE_PASSPHRASE", raising=False)
    Path("old").write_text("correct horse\n")
    Path("new").write_text("battery staple\n")


def release(words: str) -> Result:
    return CliRunner().invoke(cli, ["release", *words.split()])


def done(words: str) -> str:
    result = release(words)
    assert result.exit_code == 0, (words, result.output, result.exception)
    return result.output


def test_a_passphrase_changes_and_the_key_stays() -> None:
    done(f"key root-1.json --role root --passphrase-file old {FAST}")
    public = release_keys.read_public(Path("root-1.json"), "root")
    said = done(f"passphrase root-1.json --passphrase-file old --new-passphrase-file new {FAST}")
    assert said == f"root {public} has a new passphrase\n"
    assert Path("root-1.json").stat().st_mode & 0o777 == 0o600
    Path("keys").mkdir()
    Path("root-1.json").rename("keys/root-1.json")
    assert "wrong" in str(release("init repo --keys keys --passphrase-file old").exception)
    done("passphrase keys/root-1.json --passphrase-file new --plain")
    (found,) = release_keys.load(Path("keys"))["root"]
    assert found.public_hex == public


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("root-1.json --passphrase-file new --new-passphrase-file new", "cannot be opened"),
        ("root-1.json --passphrase-file old", "needs a new passphrase"),
        ("root-1.json --passphrase-file old --new-passphrase-file empty", "empty is empty"),
        ("other.json --passphrase-file old --new-passphrase-file new", "is not called as a key is"),
    ],
)
def test_a_passphrase_that_cannot_change_leaves_the_key(words: str, says: str) -> None:
    done(f"key root-1.json --role root --passphrase-file old {FAST}")
    Path("empty").write_text("\n")
    Path("other.json").write_text("{}")
    before = Path("root-1.json").read_bytes()
    error = release(f"passphrase {words} {FAST}").exception
    assert isinstance(error, PhaseError)
    assert says in str(error)
    assert Path("root-1.json").read_bytes() == before


@pytest.mark.parametrize("at", range(0, 8, 2))
def test_init_goes_on_where_it_was_interrupted(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Ctrl-C while the keys are written: the keys that are there are used, none is lost."""
    left = [at]
    save = release_keys.save_one

    def interrupted(*arguments: Any, **more: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        save(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(release_keys, "save_one", interrupted)
        ended = release("init repo --new-keys keys --plain")
        assert ended.exit_code == (0 if at > 7 else 1), ended.output
    made = {path: path.read_bytes() for path in Path().glob("keys/*.json")}
    assert len(made) == at
    said = done("init repo --new-keys keys --plain")
    assert (f"taken up: {at} keys that are in keys already" in said) is (at > 0)
    assert all(path.read_bytes() == content for path, content in made.items())
    done("verify repo")


def test_init_goes_on_after_the_keys() -> None:
    ReleaseKeys.generate({**release_keys.LOCAL_COUNTS, "root": 3}).save(Path("keys"))
    assert "taken up: 7 keys" in done("init repo --new-keys keys --plain --root-keys 3")


def test_init_takes_no_keys_of_another_repository() -> None:
    done("init repo --new-keys keys --plain")
    error = release("init other --new-keys keys --plain").exception
    assert "keys/pinned.json is there already" in str(error)
    assert not Path("other/metadata").exists()


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "words", ["verify repo --root pipe", "init repo --public pipe", "status repo --root pipe"]
)
def test_a_pipe_to_which_nobody_writes_is_not_waited_for(words: str) -> None:
    os.mkfifo("pipe")
    Shop() if not words.startswith("init") else None
    error = release(words).exception
    assert isinstance(error, PhaseError)
    assert "pipe cannot be read: nothing is written to it" in str(error)


def test_a_root_may_come_from_a_pipe() -> None:
    Shop().add("1")
    os.mkfifo("pipe")
    root = ROOT.read_bytes()
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(root))
    writer.start()
    assert "verified" in done("verify repo --root pipe")
    writer.join(10)


def test_a_release_without_initramfs_or_command_line_is_said() -> None:
    shop = Shop()
    said = shop.add("1")
    assert "phase: this release has no initramfs" in said
    assert "phase: this release has an empty kernel command line" in said
    Path("initramfs").write_bytes(artifacts.initramfs())
    files = "--kernel kernel --initramfs initramfs --cmdline quiet"
    assert "this release has" not in shop.run(f"add repo stable x86_64 {files} --release 2 --keys keys")


def test_new_keys_of_the_timestamp_say_where_they_are_needed() -> None:
    shop = Shop()
    shop.run("key fresh/timestamp.json --role timestamp --plain")
    said = shop.run("rotate repo --public fresh/timestamp.pub --keys keys --keys fresh --yes")
    assert "phase: timestamp gets other keys: once they are published, `phase release refresh` needs" in said
    assert "snapshot gets other keys" not in said


def test_chunks_that_are_signed_wrongly_are_found() -> None:
    """The hash of the whole fits: only machines would notice."""
    shop = Shop()
    shop.add("1")
    (manifest,) = check.judge(check.reader(Path("repo")), ROOT.read_bytes()).manifests()
    check.verify_blobs(Path("repo"), manifest)
    kernel = manifest.artifacts["kernel"]
    wrong = kernel._replace(chunks=("0" * 64, *kernel.chunks[1:]))
    forged = manifest._replace(artifacts={**manifest.artifacts, "kernel": wrong})
    with pytest.raises(RepositoryError, match="kernel: 1 of 1 chunks are signed with another hash"):
        check.verify_blobs(Path("repo"), forged, {(kernel.sha256, kernel.content)})
