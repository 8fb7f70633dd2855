"""A mutant is killed by a test that fails, and by nothing else."""

from pathlib import Path

import pytest

from tests.mutants import __main__ as mutants

INFRASTRUCTURE = """
import pytest
from lab.errors import InfrastructureError

def test_boots(lab):
    raise InfrastructureError("no cable")
"""
PRODUCT = INFRASTRUCTURE.replace("InfrastructureError", "ProductError")
SETUP = """
import pytest

@pytest.fixture
def image():
    raise RuntimeError("cannot be built")

def test_boots(image):
    pass
"""


@pytest.mark.parametrize(
    ("source", "outcome"),
    [
        ("def test_boots(): pass", "survived"),
        ("def test_boots(): assert not 'noticed'", "killed"),
        (PRODUCT, "killed"),
        (INFRASTRUCTURE, "broken"),
        (SETUP, "broken"),
        ("import nothing_of_that_name", "broken"),
        ("", "broken"),
    ],
)
def test_only_a_failing_test_kills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, outcome: str
) -> None:
    monkeypatch.setenv("LAB_LEASES", str(tmp_path / "leases"))
    (tmp_path / "phase").mkdir()
    (tmp_path / "phase/__init__.py").touch()
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["lab.plugin"]\n')
    (tmp_path / "test_it.py").write_text(source)
    found, by = mutants.test(tmp_path, ["test_it.py"])
    assert found == outcome
    assert by in ("", "test_it.py", "test_it.py::test_boots")


def test_one_that_does_not_end_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "_PATIENCE", 3)
    (tmp_path / "phase").mkdir()
    (tmp_path / "phase/__init__.py").touch()
    (tmp_path / "test_it.py").write_text("import time\ndef test_it(): time.sleep(60)")
    assert mutants.test(tmp_path, ["test_it.py"]) == ("broken", "did not end")


def test_patience_grows_with_what_is_run() -> None:
    one = mutants.patience(["tests/phase/trust"])
    assert mutants.patience(["tests/phase/trust", "tests/phase/fetch", "--timeout=60"]) == 2 * one
    # Its images come first: minutes on a slow host.
    assert mutants.patience(["scenarios/test_system.py", "--lab-arch=x86_64"]) >= 1800
