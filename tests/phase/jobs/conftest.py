from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import wasmtime

from phase.jobs.limits import MIB, Limits

FIXTURES = Path(__file__).parents[3] / "fixtures"
#: Fixtures for the ends that a job can have, with the limits by which they have them.
ENDINGS = (
    ("hello", Limits()),
    ("world", Limits()),
    ("data", Limits()),
    ("spin", Limits(fuel=1_000_000)),
    ("hog", Limits(memory_bytes=64 * MIB)),
    ("huge", Limits(memory_bytes=64 * MIB)),
    ("flood", Limits(output_bytes=100_001)),
    ("overflow", Limits()),
    ("beyond", Limits()),
)


@pytest.fixture(scope="session", autouse=True)
def _compiled_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What `phase run` compiles is not kept in this user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


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
