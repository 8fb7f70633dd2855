"""`phase` as a whole process, in a directory of its own; and in the process of the test."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import wasmtime

from phase.cli import main

FIXTURES = Path(__file__).parents[3] / "fixtures"


PHASE = [sys.executable, "-m", "phase"]


Phase = Callable[..., "subprocess.CompletedProcess[bytes]"]


class Ended(NamedTuple):
    """What a command has said, and the code that its process would end with."""

    code: int
    out: bytes
    err: str


Inside = Callable[..., Ended]


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


def key(phase: Phase) -> str:
    return str(json.loads(phase("init", "--json").stdout)["node"])


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Iterator[Inside]:
    """Run the command line in this process, on descriptors of its own; its input is a pipe or a file."""
    kept = os.dup(0)

    def run(*words: str, stdin: bytes | Path = b"") -> Ended:
        if isinstance(stdin, Path):
            reading = os.open(stdin, os.O_RDONLY)
        else:
            reading, writing = os.pipe()
            os.write(writing, stdin)
            os.close(writing)
        os.dup2(reading, 0)
        os.close(reading)
        monkeypatch.setattr(sys, "argv", ["phase", *words])
        with open(0, closefd=False) as given:
            monkeypatch.setattr(sys, "stdin", given)
            with pytest.raises(SystemExit) as ended:
                main()
        out, err = capfdbinary.readouterr()
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, out, err.decode())

    yield run
    os.dup2(kept, 0)
    os.close(kept)
