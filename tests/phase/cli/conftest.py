"""`phase` as a whole process, in a directory of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import wasmtime

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


def key(phase: Phase) -> str:
    return str(json.loads(phase("init", "--json").stdout)["node"])
