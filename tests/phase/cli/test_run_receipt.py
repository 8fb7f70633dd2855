"""`phase run --receipt`: where the receipt goes, and the names in it."""

import os
import signal
import socket
import stat
import subprocess
import time
import tty
from pathlib import Path

import pytest

from phase.cli import _outcome
from phase.jobs import receipt as receipts
from phase.jobs.status import Exited
from tests.phase.cli.conftest import PHASE, Phase, key


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_half_receipt(phase: Phase, tmp_path: Path, number: signal.Signals) -> None:
    phase("version")  # puts the modules there
    target = tmp_path / "receipts"
    target.mkdir()
    command = [*PHASE, "run", "--ephemeral", "--receipt", str(target / "r.json"), "spin.wasm"]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + 30
        while not os.listdir(target) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert os.listdir(target)
        time.sleep(0.05)
        child.send_signal(number)
        assert child.wait(30) == -number
    assert os.listdir(target) == []


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("/nope/x", "No such file or directory. Make its directory first"),
        (".", "Is a directory"),
        ("", "Is a directory"),
        ("loop", "Too many levels of symbolic links"),
        ("a" * 300, "File name too long"),
        ("/dev/fd/77", "Bad file descriptor"),
        ("/dev/fd/0", "open for reading only"),
        ("exit.wasm", "would replace the module"),
        ("socket", "block device or a socket"),
    ],
)
def test_receipts_target_that_cannot_be_written_is_refused_before_the_run(
    phase: Phase, tmp_path: Path, target: str, words: str
) -> None:
    os.symlink("loop", tmp_path / "loop")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(os.path.relpath(tmp_path / "socket"))
    done = phase("run", "--receipt", target, "exit.wasm", stdin=b"42")
    assert done.returncode == _outcome.FAILED
    assert words in done.stderr.decode()
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.glob(".*.tmp"))


def test_receipts_target_on_standard_output_follows_the_output(phase: Phase, tmp_path: Path) -> None:
    # As /dev/stdout is. Never that itself: what is wrong here could replace it.
    os.symlink("/proc/self/fd/1", tmp_path / "stdout")
    for name in ("stdout", "/dev/fd/1", "/proc/self/fd/1"):
        done = phase("run", "--receipt", name, "hello.wasm", stdin=b"ab")
        assert (done.returncode, done.stdout[:3]) == (0, b"ba{")
        assert receipts.verify(done.stdout[2:], key=key(phase)).status == Exited(0)
    # A file behind it is written to, not replaced: the output is in it, too.
    phase("run", "--receipt", "stdout", "hello.wasm", stdin=b"ab", redirect="> both")
    assert (tmp_path / "both").read_bytes()[:3] == b"ba{"
    other = phase("run", "--receipt", "/dev/fd/7", "hello.wasm", stdin=b"ab", redirect="7> seven")
    assert (other.stdout, (tmp_path / "seven").read_bytes()[:1]) == (b"ba", b"{")


def test_receipts_target_behind_a_link_is_written_and_the_link_stays(phase: Phase, tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    os.symlink("real", tmp_path / "link")
    os.symlink("not yet", tmp_path / "dangling")
    for name in ("link", "dangling"):
        assert phase("run", "--receipt", name, "hello.wasm").returncode == 0
        assert (tmp_path / name).is_symlink()
        receipts.verify((tmp_path / name).read_bytes(), key=key(phase))
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a link to another user")
def test_receipts_target_behind_a_link_of_another_user_is_refused(phase: Phase, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("old")
    os.symlink("precious", tmp_path / "link")
    os.lchown(tmp_path / "link", 12345, 12345)
    done = phase("run", "--receipt", "link", "hello.wasm")
    assert done.returncode == _outcome.FAILED
    assert b"a link of user 12345" in done.stderr
    assert (tmp_path / "precious").read_text() == "old"


def test_receipts_target_that_is_a_pipe_is_written_to(phase: Phase, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with subprocess.Popen(["cat", "fifo"], stdout=subprocess.PIPE, cwd=tmp_path) as reader:
        done = phase("run", "--receipt", "fifo", "hello.wasm")
        assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)
        assert reader.stdout is not None
        got = reader.stdout.read()
    assert done.returncode == 0
    receipts.verify(got, key=key(phase))


def test_receipts_target_that_is_a_device_is_written_to(phase: Phase, tmp_path: Path) -> None:
    # A terminal: no file can be made beside one, so nothing that is wrong here can replace it.
    master, slave = os.openpty()
    tty.setraw(slave)
    done = phase("run", "--receipt", os.ttyname(slave), "hello.wasm", stdin=b"ab")
    assert (done.returncode, done.stdout) == (0, b"ba"), done.stderr
    receipts.verify(os.read(master, 1 << 16), key=key(phase))
    assert os.isatty(slave)
    os.close(slave)
    os.close(master)


def test_receipts_target_that_fails_at_the_end_loses_no_output(phase: Phase, tmp_path: Path) -> None:
    """/dev/full takes no byte; descriptor 7 stands for it, so that nothing can be replaced."""
    full = phase("run", "--receipt", "/dev/fd/7", "hello.wasm", stdin=b"ab", redirect="7> /dev/full")
    assert (full.returncode, full.stdout) == (_outcome.LOST, b"ba")
    assert b"receipt /dev/fd/7 cannot be written: No space left on device" in full.stderr


def test_receipts_target_without_a_reader_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from phase.cli import _target
    from phase.errors import PhaseError

    os.mkfifo(tmp_path / "fifo")
    monkeypatch.setattr(_target, "PATIENCE", 0.1)
    with pytest.raises(PhaseError, match="Start what reads it first"):
        _target.Target(tmp_path / "fifo", module=tmp_path)


def test_receipts_target_stays_as_it_was_when_there_is_no_receipt(phase: Phase, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("old")
    assert phase("run", "--receipt", "kept", "nothing.wasm").returncode == _outcome.NOT_FOUND
    assert (tmp_path / "kept").read_text() == "old"
    assert not list(tmp_path.glob(".*.tmp"))


def test_receipts_target_that_is_read_only_is_refused(phase: Phase, tmp_path: Path) -> None:
    (tmp_path / "fixed").write_text("old")
    (tmp_path / "fixed").chmod(0o444)
    # Root may write everywhere, unless it has lost the capability for that.
    less = ("setpriv", "--bounding-set=-dac_override") if os.geteuid() == 0 else ()
    done = phase("run", "--receipt", "fixed", "hello.wasm", before=less)
    assert (done.returncode, b"Permission denied" in done.stderr) == (_outcome.FAILED, True)
    assert (tmp_path / "fixed").read_text() == "old"
