"""`phase run` in this process: streams, limits, files and receipts; `test_run.py` has it as a process."""

import base64
import functools
import json
import shutil
from pathlib import Path

import pytest
import wasmtime

from phase.cli import _outcome, run
from phase.identity import Identity
from phase.jobs import receipt as receipts
from phase.jobs.cache import CacheError
from tests.phase.cli.conftest import FIXTURES, Inside

Run = Inside


@pytest.fixture
def here(inside: Inside, modules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `phase run ...` in a directory with modules."""
    shutil.copytree(modules, tmp_path, dirs_exist_ok=True)
    (tmp_path / "empty.wasm").write_bytes(b"")
    (tmp_path / "copy.wasm").write_bytes(wasmtime.wat2wasm((FIXTURES / "copy.wat").read_text()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PHASE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return functools.partial(inside, "run")


@pytest.mark.parametrize(
    ("words", "out"),
    [((), b"cba"), (("--deterministic",), b"cba"), (("--no-stdin",), b""), (("--no-cache",), b"cba")],
)
def test_a_module_has_the_streams_of_the_command(
    here: Run, tmp_path: Path, words: tuple[str, ...], out: bytes
) -> None:
    assert here(*words, "hello.wasm", stdin=b"abc") == (0, out, "")
    assert (tmp_path / "cache").exists() == ("--no-cache" not in words)


def test_what_was_asked_for_is_in_the_receipt(here: Run, tmp_path: Path) -> None:
    names = ("--receipt", "r.json", "--job-id", "one", "--nonce", "mine", "--env", "NAME=a=b", "--seed", "7")
    limits = (
        "--fuel",
        "12345678",
        "--wall",
        "9",
        "--memory",
        "32",
        "--compile",
        "200",
        "--max-output",
        "100",
    )
    done = here(*names, *limits, "--scratch", "2", "hello.wasm", "--", "--fuel", "x", stdin=b"abc")
    assert done == (0, b"cba", "")
    key = Identity.load(tmp_path / "state/identity.json").public_key
    said = receipts.verify(
        (tmp_path / "r.json").read_bytes(), key=key, job_id="one", nonce="mine", stdout=b"cba"
    )
    assert (said.args, said.env, said.seed) == (("--fuel", "x"), {"NAME": "a=b"}, 7)
    found = said.limits
    assert (found.fuel, found.wall_seconds, found.output_bytes) == (12345678, 9.0, 100)
    assert (found.memory_bytes, found.compile_bytes, found.scratch_bytes) == (32 << 20, 200 << 20, 2 << 20)
    assert here("--ephemeral", "--receipt", "r.json", "hello.wasm").code == 0
    payload = json.loads(base64.b64decode(json.loads((tmp_path / "r.json").read_bytes())["payload"]))
    assert key not in json.dumps(payload)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--fuel", "1000", "spin.wasm"), 152, "spin.wasm stopped at its fuel limit"),
        (("--max-output", "3", "hello.wasm"), 153, "hello.wasm stopped at its output limit"),
        (("huge.wasm",), 137, "huge.wasm stopped at its memory limit"),
        (("empty.wasm",), 126, "empty.wasm rejected: "),
        (("overflow.wasm",), 134, "overflow.wasm trapped: "),
        (("none.wasm",), 127, "none.wasm"),
        (("--env", "NAME", "hello.wasm"), 129, "'NAME' is not NAME=VALUE"),
        (("--env", "=x", "hello.wasm"), 129, "'=x' is not NAME=VALUE"),
        (("--dir", "::/a", "hello.wasm"), 129, "'::/a' is not HOST[::GUEST][:ro]"),
        (("--dir", ".::", "hello.wasm"), 129, "'.::' is not HOST[::GUEST][:ro]"),
        (("--input", "a", "hello.wasm"), 129, "'a' is not NAME=FILE"),
        (("--input", "a=none", "hello.wasm"), 128, "input a from none cannot be read"),
        (("--dir", "none", "hello.wasm"), 128, "none is not a directory"),
        (("--input", "a/b=hello.wasm", "hello.wasm"), 128, "cannot be the name of a file"),
        (("--output", "../x", "hello.wasm"), 128, "cannot be the name of a file"),
        (("--scratch", "1024", "hello.wasm"), 128, "count as memory"),
        (("--job-id", "", "hello.wasm"), 128, "has 0 characters"),
        (("hello.wasm", "--fuel=9"), 129, "--fuel is behind the module. For Phase, give it before"),
        (("--receipt", "none/r.json", "hello.wasm"), 128, "receipt none/r.json cannot be written"),
        (("--receipt", "hello.wasm", "hello.wasm"), 128, "receipt hello.wasm would replace the module"),
    ],
)
def test_each_end_has_its_code_and_its_reason(
    here: Run, words: tuple[str, ...], code: int, said: str
) -> None:
    done = here(*words, stdin=b"abcdef")
    assert (done.code, done.err.count("\n"), done.err[:7]) == (code, 1, "phase: "), done
    assert said in done.err


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
def test_job_id_nonce_are_refused_before_the_run(here: Run, option: str, given: str, words: str) -> None:
    done = here("--receipt", "r.json", option, given, "hello.wasm", stdin=b"ab")
    assert (done.code, done.out, words in done.err) == (_outcome.FAILED, b"", True), done
    assert done.err.count("\n") == 1


def test_files_are_given_and_brought_back(here: Run, tmp_path: Path) -> None:
    """The module copies `a` of its last directory to `b`."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/a").write_bytes(b"abc")
    done = here("--dir", "shared::/data:ro", "copy.wasm")
    assert done.code != 0
    assert here("--dir", "shared::/data", "copy.wasm") == (0, b"abc", "")
    assert (tmp_path / "shared/b").read_bytes() == b"abc"
    words = ("--dir", "shared::/data", "--input", "c=exit.wasm", "--output", "b=out", "--receipt", "r.json")
    lost = here(*words, "copy.wasm")
    assert (lost.code, lost.out) == (_outcome.LOST, b"abc")
    assert lost.err == "phase: output b is lost: copy.wasm has left no file of that name\n"
    key = Identity.load(tmp_path / "state/identity.json").public_key
    said = receipts.verify((tmp_path / "r.json").read_bytes(), key=key)
    assert said.inputs["c"].length == (tmp_path / "exit.wasm").stat().st_size


def test_without_a_place_for_compiled_modules_it_runs_all_the_same(
    here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> str:
        raise CacheError("no directory")

    monkeypatch.setattr("phase.jobs.cache.usual_directory", refuse)
    done = here("hello.wasm", stdin=b"abc")
    assert done == (0, b"cba", "phase: no compiled module is used or kept: no directory\n")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), _outcome.INTERRUPTED, ""),
        (MemoryError(), _outcome.FAILED, "phase: there is not enough memory to run a job\n"),
        (OSError(28, "No space left"), _outcome.FAILED, "phase: [Errno 28] No space left\n"),
        (run.LostError("stdout is lost"), _outcome.LOST, "phase: stdout is lost\n"),
    ],
)
def test_what_goes_wrong_around_a_module_has_a_code_of_its_own(
    here: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(run, "_execute", fail)
    assert here("hello.wasm") == (code, b"", said)
