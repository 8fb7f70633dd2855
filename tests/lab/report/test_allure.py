"""From a scenario to Allure's page: real results of real runs, read where the page keeps them."""

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.report.allure import VERSION, page
from lab.report.records import Record

PROJECT = Path(__file__).resolve().parents[3]
SCENARIOS = """
import pytest
from lab.errors import InfrastructureError, MachineError, MisuseError, ProductError

ERRORS = {
    "infrastructure": InfrastructureError("no cable"),
    "machine": MachineError("a panic"),
    "misuse": MisuseError("no such machine"),
    "product": ProductError("a wrong answer"),
    "assertion": AssertionError("it is not so"),
}

@pytest.fixture
def kernel(tmp_path):
    made = tmp_path / "kernel"
    made.write_bytes(b"")
    return made

@pytest.mark.parametrize("kind", ERRORS)
def test_fails(lab, kernel, kind):
    lab.vm(f"of-{kind}", arch="arm64", kernel=kernel, segments=(lab.segment(f"lan-{kind}"),))
    raise ERRORS[kind]

def test_boots(lab, record):
    facts = dict(kernel="6.1", accel="tcg", firmware="uefi")
    record(scenario="boots", arch="arm64", topology="", phases={"init": 1.5, "job": 20.25}, **facts)
"""
CATEGORIES = {
    "infrastructure": "Infrastructure: the host, QEMU, a cable",
    "machine": "Machine: a panic, a hang",
    "misuse": "Misuse: the scenario is wrong",
    "product": "Product: an expectation failed",
    "assertion": "Product: an expectation failed",
}
_KEPT = re.compile(r'd\("(data/test-results/[^"]+|widgets/[^"]+)","([A-Za-z0-9+/=]*)"\)')


def ran(directory: Path, results: Path) -> Path:
    """The scenarios' results, of one run."""
    (directory / "conftest.py").write_text('pytest_plugins = ["lab.plugin"]\n')
    (directory / "test_it.py").write_text(SCENARIOS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"]
    done = subprocess.run(
        [*command, f"--lab-out={directory / 'out'}", f"--alluredir={results}"],
        cwd=directory,
        env=os.environ | {"LAB_LEASES": str(directory / "leases")},
        capture_output=True,
        text=True,
    )
    assert "5 failed, 1 passed" in done.stdout, done.stdout
    return results


def kept(html: str) -> dict[str, Any]:
    """What a page in one file carries, by the name its code asks for it."""
    return {name: json.loads(base64.b64decode(data)) for name, data in _KEPT.findall(html)}


@pytest.mark.timeout(900)  # the first run installs Allure
def test_owners_steps_environments_and_history_reach_the_page(tmp_path: Path) -> None:
    html = ""
    for number in range(2):
        results = {"arm64": ran(tmp_path, tmp_path / f"results-{number}")}
        facts = {"accelerator arm64": "tcg"}
        html = page(PROJECT, results, facts, history=tmp_path / "history.jsonl", append=True)
    found = kept(html)
    tests = {told["name"]: told for name, told in found.items() if name.startswith("data/")}
    assert len(tests) == 6
    for kind, category in CATEGORIES.items():
        told = tests[f"test_fails[{kind}]"]
        assert [each["name"] for each in told["categories"]] == [category]
    assert tests["test_boots"]["categories"] == []
    assert [step["name"] for step in tests["test_boots"]["steps"]] == ["init: 1.50 s", "job: 20.25 s"]
    # One run before this one, and the architecture is the environment.
    assert {(told["environment"], len(told["history"])) for told in tests.values()} == {("arm64", 1)}
    assert found["widgets/variables.json"] == {"accelerator arm64": "tcg"}


def test_what_failed_side_by_side_keeps_its_own_evidence(tmp_path: Path) -> None:
    """Attachments made by a hook or a fixture have landed on the next test before (allure-python 207)."""
    results = ran(tmp_path, tmp_path / "results")
    told = [json.loads(path.read_bytes()) for path in results.glob("*-result.json")]
    assert len(told) == 6
    for one in told:
        kind = one["name"].removeprefix("test_fails[").rstrip("]")
        files = {each["name"]: results / each["source"] for each in one.get("attachments", [])}
        if kind == "test_boots":
            assert files == {}
            continue
        assert set(files) == {f"evidence of of-{kind}", f"frames on lan-{kind}"}
        assert f"machine of-{kind}:" in files[f"evidence of of-{kind}"].read_text()


@pytest.mark.timeout(900)  # the first run installs Allure
def test_what_another_run_left_is_not_shown_and_what_was_lost_is(tmp_path: Path) -> None:
    """A worker that was killed writes no result: the old one must not stand for it."""
    results = tmp_path / "results"
    results.mkdir()
    for name, stop in {"old": 1_000, "new": 9_000}.items():
        times = {"start": stop - 1, "stop": stop}
        told = times | {
            "uuid": name,
            "name": name,
            "fullName": f"a.py::{name}",
            "status": "passed",
            "labels": [],
        }
        (results / f"{name}-result.json").write_text(json.dumps(told))
    lost = Record(
        scenario="old",
        arch="arm64",
        topology="",
        outcome="error",
        nodeid="a.py::old",
        what="killed",
        lost=True,
    )
    html = page(
        PROJECT,
        {"arm64": results},
        {},
        history=tmp_path / "history.jsonl",
        append=False,
        began={"arm64": 5.0},
        lost=(lost,),
    )
    shown = {test["name"]: test["status"] for name, test in kept(html).items() if name.startswith("data/")}
    assert shown == {"new": "passed", "old": "broken"}


def test_the_version_for_other_projects_is_ours() -> None:
    assert json.loads((PROJECT / "package.json").read_text())["dependencies"]["allure"] == VERSION


@pytest.mark.parametrize("place", ["", "fixtures/modules/npm"])
def test_the_lock_names_no_registry(place: str) -> None:
    """Hashes alone, so that any mirror will do; npm writes addresses when `.npmrc` does not stop it."""
    lock = json.loads((PROJECT / place / "package-lock.json").read_bytes())
    packages = {name: told for name, told in lock["packages"].items() if name}
    assert packages
    assert [name for name, told in packages.items() if "resolved" in told] == []
    assert all(told.get("integrity", "").startswith("sha512-") for told in packages.values())
