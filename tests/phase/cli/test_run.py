"""`phase run` as a whole process: its exit codes, streams, receipts and names."""

import hashlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import tty
from collections.abc import Callable
from pathlib import Path

import pytest
import wasmtime

from phase.cli import _outcome
from phase.jobs import receipt as receipts
from phase.jobs.status import Exited

FIXTURES = Path(__file__).parents[3] / "fixtures"
PHASE = [sys.executable, "-m", "phase"]
Phase = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("modules")
    for name in ("hello", "exit", "spin", "flood", "huge", "overflow", "beyond"):
        data = wasmtime.wat2wasm((FIXTURES / f"{name}.wat").read_text())
        (directory / f"{name}.wasm").write_bytes(bytes(data))
    return directory


@pytest.fixture
def phase(tmp_path: Path, modules: Path) -> Phase:
    """Run the command line in a fresh directory, through a shell where redirections matter."""

    def run(
        *words: str, stdin: bytes = b"", redirect: str = "", before: tuple[str, ...] = ()
    ) -> "subprocess.CompletedProcess[bytes]":
        command = [*before, *PHASE, *words]
        if redirect:
            command = ["sh", "-c", f'"$@" {redirect}', "sh", *command]
        environment = os.environ | {
            "PHASE_STATE": str(tmp_path / "state"),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "PYTHONPATH": str(FIXTURES.parent),
        }
        for name in ("hello", "exit", "spin"):
            if not (tmp_path / f"{name}.wasm").exists():
                os.link(modules / f"{name}.wasm", tmp_path / f"{name}.wasm")
        return subprocess.run(
            command, input=stdin, capture_output=True, cwd=tmp_path, env=environment, timeout=60, check=False
        )

    return run


def _key(phase: Phase) -> str:
    return str(json.loads(phase("init", "--json").stdout)["node"])


# Closed descriptors.


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors_leave_the_exit_code(phase: Phase, closed: str) -> None:
    done = phase("run", "exit.wasm", stdin=b"42", redirect=closed)
    # Without input the module has no number to exit with.
    assert done.returncode == (0 if "<" in closed else 42), done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words", [("version",), ("init",), ("release", "show", "x"), ("receipt", "verify", "x")]
)
def test_closed_descriptors_do_no_harm_to_other_commands(phase: Phase, words: tuple[str, ...]) -> None:
    plain = phase(*words)
    for closed in ("<&-", ">&-", "2>&-"):
        done = phase(*words, redirect=closed)
        assert done.returncode == plain.returncode
        assert done.stderr == (b"" if closed == "2>&-" else plain.stderr)


def test_input_that_cannot_be_read_is_said(phase: Phase, tmp_path: Path) -> None:
    done = phase("run", "hello.wasm", redirect="0>/dev/null")  # open to write only
    assert done.returncode == _outcome.LOST
    assert done.stderr == b"phase: stdin of the module ended early: Bad file descriptor\n"


def test_closed_descriptors_are_not_given_to_the_receipt(phase: Phase, tmp_path: Path) -> None:
    """Its file would otherwise be descriptor 1, and the module's output would go into it."""
    done = phase("run", "--receipt", "r.json", "hello.wasm", stdin=b"ab", redirect=">&-")
    assert done.returncode == 0
    assert receipts.verify((tmp_path / "r.json").read_bytes(), key=_key(phase)).status == Exited(0)


# Exit codes.


def test_exit_codes_tell_every_end_apart(phase: Phase, modules: Path) -> None:
    m = str(modules)
    ends = {
        "own 1": phase("run", "exit.wasm", stdin=b"1"),
        "own 125": phase("run", "exit.wasm", stdin=b"125"),
        "own 200": phase("run", "exit.wasm", stdin=b"200"),
        "own 126": phase("run", "exit.wasm", stdin=b"126"),
        "own 256": phase("run", "exit.wasm", stdin=b"256"),
        "rejected": phase("run", f"{m}/beyond.wasm"),
        "absent": phase("run", "nothing.wasm"),
        "a directory": phase("run", "."),
        "refused": phase("run", "exit.wasm", "\udc80"),
        "usage": phase("run", "--fuel", "x", "exit.wasm"),
        "no module": phase("run"),
        "no option": phase("run", "--fule", "5", "exit.wasm"),
        "no number": phase("run", "--wall", "nan", "exit.wasm"),
        "unread": phase("run", "hello.wasm", redirect="</proc/self/mem"),
        "not a variable": phase("run", "--env", "x", "exit.wasm"),
        "trapped": phase("run", f"{m}/overflow.wasm"),
        "wall": phase("run", "--wall", "0.2", "--fuel", "9007199254740991", "spin.wasm"),
        "fuel": phase("run", "--fuel", "1000", "spin.wasm"),
        "output": phase("run", "--max-output", "10", f"{m}/flood.wasm"),
        "memory": phase("run", "--memory", "1", f"{m}/huge.wasm"),
    }
    assert {name: done.returncode for name, done in ends.items()} == {
        "own 1": 1,
        "own 125": 125,
        "own 200": 200,
        "own 126": 255,
        "own 256": 255,
        "rejected": 126,
        "absent": 127,
        "a directory": 127,
        "refused": 128,
        "usage": 129,
        "no module": 129,
        "no option": 129,
        "no number": 129,
        "unread": 141,
        "not a variable": 129,
        "trapped": 134,
        "wall": 142,
        "fuel": 152,
        "output": 153,
        "memory": 137,
    }
    assert not [name for name, done in ends.items() if b"Traceback" in done.stderr]
    assert b"exited with code 256" in ends["own 256"].stderr


@pytest.mark.parametrize("words", [("--receipt", "r.json"), ("--receipt=r.json",), ("x", "--wall", "1")])
def test_options_of_phase_behind_the_module_are_refused(
    phase: Phase, tmp_path: Path, words: tuple[str, ...]
) -> None:
    done = phase("run", "hello.wasm", *words, stdin=b"ab")
    assert (done.returncode, done.stdout) == (_outcome.USAGE, b"")
    name = next(word for word in words if word.startswith("--")).partition("=")[0].encode()
    assert b"phase: " + name + b" is behind the module." in done.stderr
    assert b"`phase run " + name + b" ... MODULE`" in done.stderr
    assert b"`phase run MODULE -- " + name + b" ...`" in done.stderr
    assert not (tmp_path / "r.json").exists()


def test_behind_two_dashes_every_argument_is_the_modules(phase: Phase, tmp_path: Path) -> None:
    """As docs/reference.md shows it."""
    words = ("--receipt", "theirs", "--", "--wall")
    done = phase("run", "--receipt", "r.json", "hello.wasm", "--", *words, stdin=b"ab")
    assert (done.returncode, done.stdout) == (0, b"ba")
    assert receipts.verify((tmp_path / "r.json").read_bytes(), key=_key(phase)).args == words
    plain = phase("run", "--receipt", "r.json", "hello.wasm", "--theirs", "--", "-h", stdin=b"ab")
    assert plain.returncode == 0
    found = receipts.verify((tmp_path / "r.json").read_bytes(), key=_key(phase))
    assert found.args == ("--theirs", "--", "-h")


_INTERRUPTED = """
import sys
sys.argv = ["phase", "run", "x.wasm"]
class Interrupt:
    def find_spec(self, name, *rest):
        if name == "{name}":
            raise {error}
sys.meta_path.insert(0, Interrupt())
from phase.cli import main
main()
"""


@pytest.mark.parametrize("name", ["phase.cli.run", "phase.jobs.runner"])
def test_exit_codes_of_an_early_interrupt(name: str) -> None:
    code = _INTERRUPTED.format(name=name, error="KeyboardInterrupt")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert done.returncode == _outcome.INTERRUPTED


@pytest.mark.parametrize("error", ["MemoryError", "RuntimeError"])
def test_exit_codes_of_what_phase_did_not_expect(error: str) -> None:
    code = _INTERRUPTED.format(name="phase.jobs.runner", error=error)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert done.returncode == _outcome.FAILED


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


def test_exit_codes_of_output_that_is_lost(phase: Phase, tmp_path: Path) -> None:
    full = phase("run", "hello.wasm", stdin=b"ab", redirect=">/dev/full")
    assert full.returncode == _outcome.LOST
    assert b"stdout of the module is lost: No space left" in full.stderr
    command = [*PHASE, "run", "hello.wasm"]
    reader, writer = os.pipe()
    os.close(reader)
    gone = subprocess.run(
        command, input=b"ab", stdout=writer, stderr=subprocess.PIPE, cwd=tmp_path, timeout=60, check=False
    )
    os.close(writer)
    assert (gone.returncode, gone.stderr) == (_outcome.LOST, b"")


def test_output_goes_to_a_pipe_that_does_not_block(phase: Phase, tmp_path: Path) -> None:
    phase("version")  # puts the module there
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    given = b"ab" * 200_000
    with subprocess.Popen(
        [*PHASE, "run", "hello.wasm"], stdin=subprocess.PIPE, stdout=writer, cwd=tmp_path
    ) as child:
        os.close(writer)
        assert child.stdin is not None
        child.stdin.write(given)
        child.stdin.close()
        with open(reader, "rb") as file:
            assert file.read() == given[::-1]
        assert child.wait(30) == 0


# The text format, and what is not a module.


def test_text_format_runs(phase: Phase, tmp_path: Path) -> None:
    source = (FIXTURES / "hello.wat").read_bytes()
    for name, before in (("hello.wat", b""), ("marked.wat", b"\xef\xbb\xbf"), ("comment.wat", b"\n;; (\n")):
        (tmp_path / name).write_bytes(before + source)
        done = phase("run", "--receipt", "r.json", name, stdin=b"ab")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"ba", b"")
    found = receipts.verify((tmp_path / "r.json").read_bytes(), key=_key(phase))
    assert found.module.sha256 == hashlib.sha256(before + source).hexdigest(), "it is that of the file"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"(module\n  (fun))", "its text is not valid in line 2, column 4: "),
        (b"(" * 100_000, "its text is not valid"),
        (b"(module \xff)", "its text is not valid"),
        (b"\x7fELF\x02\x01\x01", "it is not WebAssembly, neither"),
        (b"#!/bin/sh\n", "it is not WebAssembly, neither"),
        (b"", "it is not WebAssembly, neither"),
        (b"\0asm\x0d\0\x01\0", "it is a component (WASI 0.2); only WASI preview 1 modules run"),
        (b"(component)", "it is a component (WASI 0.2); only WASI preview 1 modules run"),
        (b"(module)", "module exports no function _start; only WASI commands can be run"),
    ],
    ids=["text", "deep", "not UTF-8", "elf", "script", "empty", "component", "component text", "library"],
)
def test_text_format_or_what_it_is_instead(phase: Phase, tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "module").write_bytes(content)
    done = phase("run", "module")
    assert done.returncode == _outcome.REJECTED
    assert f"phase: module module rejected: {words}" in done.stderr.decode()
    assert len(done.stderr.splitlines()) == 1


# Input and output as they come.


def test_idle_input_does_not_hold_up_the_wall_clock(phase: Phase, tmp_path: Path) -> None:
    phase("version")  # puts the modules there
    command = [*PHASE, "run", "--wall", "0.5", "exit.wasm"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=tmp_path) as child:
        assert child.wait(50) == 142


def test_idle_input_is_left_to_who_reads_it_next(phase: Phase, tmp_path: Path) -> None:
    """In a `while read` loop, a job that asks for no input leaves the loop's lines alone."""
    phase("version")
    script = 'while read -r line; do echo "$line"; "$@" run --wall 5 --fuel 1000 spin.wasm 2>/dev/null; done'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *PHASE],
        input=b"one\ntwo\n",
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert done.stdout == b"one\ntwo\n"


# The receipt's target.


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
        assert receipts.verify(done.stdout[2:], key=_key(phase)).status == Exited(0)
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
        receipts.verify((tmp_path / name).read_bytes(), key=_key(phase))
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
    receipts.verify(got, key=_key(phase))


def test_receipts_target_that_is_a_device_is_written_to(phase: Phase, tmp_path: Path) -> None:
    # A terminal: no file can be made beside one, so nothing that is wrong here can replace it.
    master, slave = os.openpty()
    tty.setraw(slave)
    done = phase("run", "--receipt", os.ttyname(slave), "hello.wasm", stdin=b"ab")
    assert (done.returncode, done.stdout) == (0, b"ba"), done.stderr
    receipts.verify(os.read(master, 1 << 16), key=_key(phase))
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


# Job id and nonce.


@pytest.mark.parametrize("option", ["--job-id", "--nonce"])
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("x\x1b[31m\nsigned by  00", r"cannot be printed: 'x\x1b[31m\nsigned by  00'"),
        ("a\u202eb", r"cannot be printed: 'a\u202eb'"),
        ("\udcff", r"cannot be printed: '\udcff'"),
        ("x" * 129, "has 129 characters"),
    ],
    ids=["control", "right to left", "not UTF-8", "long"],
)
def test_job_id_nonce_are_refused_before_the_run(phase: Phase, option: str, given: str, words: str) -> None:
    done = phase("run", "--receipt", "r.json", option, given, "hello.wasm", stdin=b"ab")
    assert (done.returncode, done.stdout) == (_outcome.FAILED, b"")
    assert words in done.stderr.decode()
    assert len(done.stderr.splitlines()) == 1


def test_job_id_that_is_empty_is_refused(phase: Phase) -> None:
    done = phase("run", "--receipt", "r.json", "--job-id", "", "hello.wasm")
    assert (done.returncode, b"has 0 characters" in done.stderr) == (_outcome.FAILED, True)


def test_a_deterministic_run_has_all_its_input_and_its_seed_in_the_receipt(
    phase: Phase, tmp_path: Path
) -> None:
    chance = bytes(wasmtime.wat2wasm((FIXTURES / "chance.wat").read_text()))
    (tmp_path / "chance.wasm").write_bytes(chance)
    words = "run", "--ephemeral", "--receipt", "r.json", "--seed", "7"
    first, second = (phase(*words, "chance.wasm").stdout for _ in range(2))
    assert first == second
    assert len(first) == 64
    assert phase("run", "--deterministic", "chance.wasm").stdout[32:] == first[32:]
    assert phase(*words, "hello.wasm", stdin=b"abc").stdout == b"cba"
    key = json.loads((tmp_path / "r.json").read_text())["signatures"][0]["keyid"]
    done = phase("receipt", "verify", "r.json", "--key", key)
    assert b"seed       7\n" in done.stdout


def _copier(directory: Path) -> None:
    module = wasmtime.wat2wasm((FIXTURES / "copy.wat").read_text())
    (directory / "copy.wasm").write_bytes(bytes(module))


def test_files_are_given_and_brought_back(phase: Phase, tmp_path: Path) -> None:
    _copier(tmp_path)
    (tmp_path / "in").write_bytes(b"abc")
    (tmp_path / "shared").mkdir()
    words = "run", "--ephemeral", "--receipt", "r.json", "--dir", "shared::/data", "--input", "a=in"
    # Its last directory is the one in memory for files of its own.
    done = phase(*words, "--output", "b=out", "copy.wasm")
    assert done.returncode == 44  # in /data there is no such file
    (tmp_path / "shared/a").write_bytes(b"shared")
    done = phase(*words, "--output", "b=out", "copy.wasm")
    assert done.stdout == b"shared"
    assert done.returncode == _outcome.LOST
    assert b"output b is lost: copy.wasm has left no file of that name" in done.stderr
    key = json.loads((tmp_path / "r.json").read_text())["signatures"][0]["keyid"]
    told = phase("receipt", "verify", "r.json", "--key", key).stdout.decode()
    assert f"input a    sha256:{hashlib.sha256(b'abc').hexdigest()} (3 bytes)" in told
    assert "writes     /data" in told


def test_a_directory_may_be_for_reading(phase: Phase, tmp_path: Path) -> None:
    _copier(tmp_path)
    (tmp_path / "a").write_bytes(b"abc")
    assert phase("run", "--dir", ".:ro", "copy.wasm").returncode != 0
    assert not (tmp_path / "b").exists()
    assert phase("run", "--dir", ".", "copy.wasm").stdout == b"abc"
    assert (tmp_path / "b").read_bytes() == b"abc"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--dir", "none"), b"none is not a directory"),
        (("--dir", "::/a"), b"is not HOST[::GUEST][:ro]"),
        (("--input", "a"), b"is not NAME=FILE"),
        (("--input", "a=none"), b"input a from none"),
        (("--input", "a/b=hello.wasm"), b"cannot be the name of a file"),
        (("--output", "../x"), b"cannot be the name of a file"),
        (("--scratch", "1024"), b"count as memory"),
    ],
)
def test_files_that_cannot_be_given_are_refused(phase: Phase, words: tuple[str, ...], said: bytes) -> None:
    done = phase("run", *words, "hello.wasm")
    assert done.returncode in (_outcome.FAILED, _outcome.USAGE)
    assert said in done.stderr
