"""A pytest of its own for the plugin."""

import json
from pathlib import Path
from typing import Any

import pytest

CONFTEST = """
pytest_plugins = ["lab.plugin"]
import pytest

@pytest.fixture
def kernel(tmp_path):
    made = tmp_path / "kernel"
    made.write_bytes(b"")
    return made

@pytest.fixture
def broken():
    raise RuntimeError("no image")
"""


@pytest.fixture(autouse=True)
def own_leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """These start nothing, and wait for nobody who does."""
    monkeypatch.setenv("LAB_LEASES", str(tmp_path / "leases"))


def run(
    pytester: pytest.Pytester, source: str, *arguments: str
) -> tuple[pytest.RunResult, list[dict[str, Any]]]:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(source)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--lab-out=out", *arguments)
    records = [json.loads(path.read_text()) for path in sorted(Path("out/records").glob("*"))]
    return result, records
