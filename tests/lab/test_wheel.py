"""The lab in a project of somebody else: from a wheel, in an environment that has no checkout."""

import json
import subprocess
from pathlib import Path

import pytest

from tests import wheel
from tests.wheel import PROJECT, run

SCENARIOS = """
import os, signal
from pathlib import Path
import pytest

@pytest.mark.lab(vcpus=0, memory=0)
def test_topology(lab, tmp_path):
    kernel = tmp_path / "kernel"
    kernel.touch()
    lab.vm("theirs", arch="x86_64", kernel=kernel, segments=(lab.segment("lan"),))

@pytest.mark.lab(vcpus=0, memory=0)
def test_killed(lab):
    if Path("kill").exists():
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel.install(tmp_path_factory.mktemp("wheel"))


@pytest.mark.timeout(900)
def test_a_project_has_the_lab_by_installing_it(python: Path, tmp_path: Path) -> None:
    """No conftest names the plugin, and no file of the checkout is looked at."""
    (tmp_path / "test_theirs.py").write_text(SCENARIOS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    where = run(python, tmp_path, "-c", "import lab, phase; print(lab.__file__, phase.__file__)")
    assert str(PROJECT) not in where.stdout
    done = run(python, tmp_path, "-m", "pytest", "-q", "-n", "2", "--strict-markers")
    assert "2 passed" in done.stdout, done.stdout + done.stderr

    (tmp_path / "deep").mkdir()
    graph = run(python, tmp_path, "-m", "lab", "graph", "test_topology")
    assert "theirs" in graph.stdout, graph.stderr
    assert run(python, tmp_path, "-m", "lab", "doctor").returncode in (0, 1)
    report = run(python, tmp_path, "-m", "lab", "report")
    assert report.returncode == 0, report.stderr
    assert "npm install allure@" in report.stdout
    assert (tmp_path / "reports/out/matrix.html").exists()

    (tmp_path / "kill").touch()
    run(python, tmp_path, "-m", "pytest", "-q", "-n", "1", "-p", "no:randomly")
    run(python, tmp_path, "-m", "lab", "report", "--no-html")
    summary = json.loads((tmp_path / "reports/out/summary.json").read_text())
    assert {line["scenario"]: line["outcome"] for line in summary}["test_killed"] == "error"


@pytest.mark.timeout(900)
def test_what_it_reads_at_run_time_is_in_the_wheel(python: Path, tmp_path: Path) -> None:
    packages = Path(run(python, tmp_path, "-c", "import lab; print(lab.__path__[0])").stdout.strip()).parent
    for name in ("lab", "phase"):
        tracked = subprocess.run(
            ["git", "ls-files", name], cwd=PROJECT, capture_output=True, text=True, check=True
        ).stdout.split()
        assert [path for path in tracked if not (packages / path).is_file()] == []


@pytest.mark.timeout(900)
def test_without_its_libraries_pytest_goes_on(python: Path, tmp_path: Path) -> None:
    """The wheel without extras beside pytest: the lab says what it lacks, and nothing else is in the way."""
    (tmp_path / "allure.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'allure'\", name='allure')"
    )
    (tmp_path / "test_theirs.py").write_text("def test_one(): pass\ndef test_two(lab): pass\n")
    words = ("-m", "pytest", "-q", "-p", "no:allure_pytest", "-p", "no:cacheprovider", "-rfE")
    done = run(python, tmp_path, *words)
    assert "1 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert "the lab needs allure; in Phase's checkout: pip install '.[lab]'" in done.stdout
