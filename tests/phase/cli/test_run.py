"""`phase run` as a whole process: its exit codes, streams and files."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import wasmtime

from phase.cli import _outcome
from phase.jobs import receipt as receipts
from phase.jobs.status import Exited
from tests.phase.cli.conftest import FIXTURES, PHASE, Phase, key


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
    assert receipts.verify((tmp_path / "r.json").read_bytes(), key=key(phase)).status == Exited(0)


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
    assert receipts.verify((tmp_path / "r.json").read_bytes(), key=key(phase)).args == words
    plain = phase("run", "--receipt", "r.json", "hello.wasm", "--theirs", "--", "-h", stdin=b"ab")
    assert plain.returncode == 0
    found = receipts.verify((tmp_path / "r.json").read_bytes(), key=key(phase))
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


def test_text_format_runs(phase: Phase, tmp_path: Path) -> None:
    source = (FIXTURES / "hello.wat").read_bytes()
    for name, before in (("hello.wat", b""), ("marked.wat", b"\xef\xbb\xbf"), ("comment.wat", b"\n;; (\n")):
        (tmp_path / name).write_bytes(before + source)
        done = phase("run", "--receipt", "r.json", name, stdin=b"ab")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"ba", b"")
    found = receipts.verify((tmp_path / "r.json").read_bytes(), key=key(phase))
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
        (b"\0asm\x0d\0\x01\0", "component exports no wasi:cli/run of WASI 0.2; only commands can be run"),
        (b"(component)", "component exports no wasi:cli/run of WASI 0.2; only commands can be run"),
        (b"(module)", "module exports no function _start; only WASI commands can be run"),
    ],
    ids=["text", "deep", "not UTF-8", "elf", "script", "empty", "component", "component text", "library"],
)
def test_text_format_or_what_it_is_instead(phase: Phase, tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "module").write_bytes(content)
    done = phase("run", "module")
    assert done.returncode == _outcome.REJECTED
    assert f"phase: module rejected: {words}" in done.stderr.decode()
    assert len(done.stderr.splitlines()) == 1


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
