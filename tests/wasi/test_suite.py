"""The runner of WASI's test suite, on a suite made here."""

import json
from pathlib import Path

import pytest
import wasmtime

from tests.wasi.__main__ import main

FIXTURES = Path(__file__).parents[2] / "fixtures"


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    directory = tmp_path / "tests" / "rust" / "testsuite" / "wasm32-wasip1"
    directory.mkdir(parents=True)
    return directory


def _add(suite: Path, name: str, fixture: str, said: dict[str, object] | None = None) -> None:
    (suite / f"{name}.wasm").write_bytes(wasmtime.wat2wasm((FIXTURES / f"{fixture}.wat").read_text()))
    if said is not None:
        (suite / f"{name}.json").write_text(json.dumps(said))


def test_the_suites_tests_are_run_and_counted(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [{"type": "run", "args": ["é"], "env": {"A": "1"}}, {"type": "read", "payload": "module\0é\0"}]
    _add(suite, "words", "world", {"operations": [*steps, {"type": "wait"}]})
    _add(suite, "quiet", "hello")
    (suite / "fs-tests.dir").mkdir()
    (suite / "fs-tests.dir" / "a").write_text("abc")
    _add(suite, "files", "copy", {"root": "fs-tests.dir", "stdout": "abc"})
    assert main([str(tmp_path)]) == 0
    assert "3 of the 3 tests pass; 1 of them are granted a directory" in capsys.readouterr().out
    assert not (suite / "fs-tests.dir" / "b").exists()


def test_a_test_that_fails_fails_the_run(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _add(suite, "code", "hello", {"exit_code": 3})
    _add(suite, "print", "data", {"stdout": "hello\nnobody\n"})
    assert main([str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "exit code 0, expected 3" in said
    assert "0 of the 2 tests pass" in said


def test_a_checkout_of_sources_is_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1
    assert "prod/testsuite-base" in capsys.readouterr().out
