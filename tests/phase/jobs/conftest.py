from collections.abc import Callable
from pathlib import Path

import pytest
import wasmtime

FIXTURES = Path(__file__).parents[3] / "fixtures"


@pytest.fixture(scope="session")
def wasm() -> Callable[[str], bytes]:
    """Assemble a fixture from its source."""

    def assemble(name: str) -> bytes:
        return bytes(wasmtime.wat2wasm((FIXTURES / f"{name}.wat").read_text()))

    return assemble


@pytest.fixture(scope="session")
def wat() -> Callable[[str], bytes]:
    """Assemble a module from its fields; WASI's functions are there by their names."""

    def assemble(fields: str) -> bytes:
        functions = {"fd_write": 4, "fd_read": 4, "poll_oneoff": 4, "fd_close": 1, "fd_renumber": 2}
        imports = "".join(
            f'(import "wasi_snapshot_preview1" "{name}" (func ${name} (param{" i32" * count}) (result i32)))'
            for name, count in functions.items()
            if f"${name} " in fields
        )
        if "$proc_exit " in fields:
            imports += '(import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))'
        return bytes(wasmtime.wat2wasm(f"(module {imports} {fields})"))

    return assemble
