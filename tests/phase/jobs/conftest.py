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
