"""A report is made of records and results as the pytest plugin writes them; Allure is the real one."""

import io
import json
import time
import uuid
from pathlib import Path

import pytest
from rich.console import Console

from lab.report.allure import merge, merge_all
from lab.report.build import build
from lab.report.errors import ReportError
from lab.report.page import POLICY, outside_requests
from lab.report.records import Record
from lab.report.run import read_records
from lab.report.table import phase_order


def _record(out: Path, arch: str, scenario: str, outcome: str, **phases: float) -> None:
    directory = out / arch / "records"
    directory.mkdir(parents=True, exist_ok=True)
    record = {
        "scenario": scenario,
        "arch": arch,
        "topology": "pair",
        "outcome": outcome,
        "phases": phases,
        "accel": "tcg",
        "kernel": "6.1.0",
        "nodeid": f"scenarios/test_loop.py::{scenario}",
        "duration": 21.5,
        "busy": 0.44,
        "later": "fields that a newer plugin adds are no error",
    }
    (directory / f"{scenario}.json").write_text(json.dumps(record), encoding="utf-8")


def _result(out: Path, arch: str, status: str, message: str) -> None:
    directory = out / arch / "allure"
    directory.mkdir(parents=True, exist_ok=True)
    name = str(uuid.uuid4())
    (directory / f"{name}-attachment.txt").write_text(message, encoding="utf-8")
    result = {
        "uuid": name,
        "historyId": "the same on both architectures",
        "name": "loop",
        "fullName": "scenarios.test_loop#loop",
        "status": status,
        "statusDetails": {"message": message},
        "attachments": [{"name": "console", "source": f"{name}-attachment.txt", "type": "text/plain"}],
        "labels": [{"name": "suite", "value": "loop"}, {"name": "arch", "value": "wrong"}],
        "start": 1,
        "stop": 5,
    }
    (directory / f"{name}-result.json").write_text(json.dumps(result), encoding="utf-8")


def _plain() -> Console:
    return Console(file=io.StringIO(), width=100)


def _printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_summary_and_table_of_both_architectures(tmp_path: Path) -> None:
    _record(tmp_path, "x86_64", "loop", "passed", kernel=1.25, trust=2.0, job=3.5)
    _record(tmp_path, "arm64", "loop", "failed", kernel=1.5)
    console = _plain()
    build(tmp_path, html=False, console=console)
    assert json.loads((tmp_path / "summary.json").read_bytes()) == [
        {
            "scenario": "loop",
            "arch": "arm64",
            "topology": "pair",
            "outcome": "failed",
            "phases": {"kernel": 1.5},
            "accel": "tcg",
            "kernel": "6.1.0",
        },
        {
            "scenario": "loop",
            "arch": "x86_64",
            "topology": "pair",
            "outcome": "passed",
            "phases": {"kernel": 1.25, "trust": 2.0, "job": 3.5},
            "accel": "tcg",
            "kernel": "6.1.0",
        },
    ]
    text = _printed(console)
    assert "passed 21.5 s 0.4" in text
    assert "failed 21.5 s 0.4" in text
    assert all(word in text for word in ("1.25", "2.00", "3.50", "6.75", "1.50", "summary.json"))


def test_phases_keep_the_order_of_the_boot() -> None:
    def record(*names: str) -> Record:
        phases = dict.fromkeys(names, 1.0)
        return Record(scenario="s", arch="a", topology="t", outcome="passed", phases=phases)

    records = [record("kernel", "trust", "rescue"), record("kernel", "init", "trust", "job")]
    assert phase_order(records) == ["kernel", "init", "trust", "rescue", "job"]


def test_no_results_say_how_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="tox -e lab-x86_64"):
        read_records(tmp_path)


def test_a_broken_record_is_named(tmp_path: Path) -> None:
    _record(tmp_path, "x86_64", "loop", "passed")
    broken = tmp_path / "x86_64" / "records" / "z.json"
    broken.write_text('{"scenario": 3}', encoding="utf-8")
    with pytest.raises(ReportError, match=r"z\.json is not a record"):
        read_records(tmp_path)


@pytest.mark.timeout(900)  # the first run installs Allure
def test_the_page_asks_nothing_of_anyone(tmp_path: Path) -> None:
    hostile = '</script><script src="https://a.example/x.js"></script><img src="https://a.example/x.png">'
    for arch, status in (("x86_64", "passed"), ("arm64", "failed")):
        _record(tmp_path, arch, "loop", status, kernel=1.0)
        _result(tmp_path, arch, status, hostile)
    console = _plain()
    build(tmp_path, html=True, console=console)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert outside_requests(page) == []
    assert "googletagmanager" not in page
    assert POLICY in page
    assert "report.html" in _printed(console)
    # The architectures are environments of the report.
    assert '"x86_64"' in page
    assert '"arm64"' in page


def test_results_of_one_run_of_both_are_told_apart_by_their_labels(tmp_path: Path) -> None:
    """What ran by itself later is taken from there."""
    for arch in ("x86_64", "arm64"):
        _result(tmp_path, arch, "passed", "")
        (path,) = (tmp_path / arch / "allure").glob("*-result.json")
        both = tmp_path / "both" / f"{arch}-result.json"
        both.parent.mkdir(exist_ok=True)
        told = json.loads(path.read_text())
        both.write_text(json.dumps(told | {"labels": [{"name": "arch", "value": arch}]}))
    assert merge("", tmp_path / "both", tmp_path / "all") == {"x86_64", "arm64"}
    assert merge("", tmp_path / "both", tmp_path / "left", without={"arm64"}) == {"x86_64"}
    assert [path.name for path in (tmp_path / "left").iterdir()] == ["x86_64-result.json"]


def test_results_of_shards_are_of_their_architecture(tmp_path: Path) -> None:
    """CI runs each architecture in several jobs; the report has one environment for all of them."""
    results = {}
    for name in ("x86_64-1", "x86_64-2", "arm64-1"):
        _result(tmp_path, name, "passed", "")
        results[name] = tmp_path / name / "allure"
    merged, arches = merge_all(results, tmp_path / "merged", began={})
    assert arches == {"x86_64", "arm64"}
    labels = [
        label["value"]
        for directory in merged
        for path in directory.glob("*-result.json")
        for label in json.loads(path.read_text())["labels"]
        if label["name"] == "arch"
    ]
    assert sorted(labels) == ["arm64", "x86_64", "x86_64"]
    # Each shard's results are of its own last run.
    merged, _ = merge_all(results, tmp_path / "newer", began={"x86_64-2": time.time() + 60})
    assert [len(list(each.glob("*-result.json"))) for each in merged] == [1, 0, 1]


def test_what_passed_only_when_tried_again_is_not_green(tmp_path: Path) -> None:
    _result(tmp_path, "x86_64", "passed", "")
    (path,) = (tmp_path / "x86_64" / "allure").glob("*-result.json")
    result = json.loads(path.read_text())
    result["labels"].append({"name": "flaky", "value": "QEMU did not start"})
    path.write_text(json.dumps(result))
    merge("x86_64", tmp_path / "x86_64" / "allure", tmp_path / "merged")
    (merged,) = (tmp_path / "merged").glob("*-result.json")
    told = json.loads(merged.read_text())
    assert told["status"] == "unknown"
    assert told["statusDetails"]["flaky"] is True
    assert "QEMU did not start" in told["statusDetails"]["message"]
