"""The lab's own commands, as a person types them; no machine is switched on."""

import configparser
import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from lab import cli
from lab.doctor import examine
from lab.doctor.accel import Ladder, Rung
from lab.graph import Node
from lab.report.records import Record

PROJECT = Path(__file__).resolve().parents[2]
BROKEN = Ladder("tcg", (Rung("runs a CPU", ok=False, detail="100000 loops in 110.00 ms"),), "Ask for more.")


def test_the_doctor_answers_and_its_exit_code_says_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looked = functools.partial(examine.examine, accelerator=lambda: BROKEN)()
    for short in (False, True):
        measures = tuple(measure._replace(wanted=1 << 60 if short else 0) for measure in looked.measures)
        tools = tuple(tool._replace(state="ok") for tool in looked.tools)
        health = looked._replace(measures=measures, tools=tools)
        monkeypatch.setattr(examine, "examine", lambda *_, health=health: health)
        assert cli.main(["doctor"]) == int(short)
        assert "runs a CPU" in capsys.readouterr().out
        assert cli.main(["doctor", "--json"]) == int(short)
        assert json.loads(capsys.readouterr().out)["ready"] is not short


def test_a_graph_of_the_last_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["graph", "test_boots", "--out", str(tmp_path)]
    assert cli.main(words) == 1
    assert "no results" in capsys.readouterr().err
    nodes = [Node("one", "arm64", ("lan",)), Node("way", segments=("lan", "wan"), kind="router")]
    record = Record(
        scenario="boots from a neighbour",
        arch="arm64",
        topology="",
        outcome="passed",
        nodeid="scenarios/test_loop.py::test_boots[arm64]",
        nodes=nodes,
    )
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "one.json").write_bytes(msgspec.json.encode(record))
    assert cli.main(words) == 0
    assert capsys.readouterr().out.startswith("graph LR\n")
    assert cli.main([*words, "--format", "dot"]) == 0
    assert '"router way" -- "segment wan"' in capsys.readouterr().out
    assert cli.main([*words[:1], "test_other", *words[2:]]) == 1
    assert "no run of 'test_other'" in capsys.readouterr().err


def test_clean_takes_what_was_made_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, cache = tmp_path / "root", tmp_path / "cache"
    made = [
        root / ".tox/unit/x",
        root / "reports/out/arm64/x",
        root / "lab/__pycache__/x",
        cache / "images/x",
    ]
    kept = [root / "lab/cli.py", root / ".venv/x", root / "reports/history/x", cache / "somebody's/x"]
    for path in (*made, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (root / "pyproject.toml").write_text('[project]\nname = "phase"\n')
    monkeypatch.chdir(root / "lab")
    monkeypatch.setenv("PHASE_CACHE", str(cache))
    (root / "reports/out/x86_64").mkdir()
    (root / "reports/out/both").mkdir()
    assert cli.main(["clean", "--results", "x86_64", "both"]) == 0
    assert os.listdir(root / "reports/out") == ["arm64"]
    assert cli.main(["clean"]) == 0
    assert f"removed {root / '.tox'}" in capsys.readouterr().out
    assert [path for path in made if path.exists()] == []
    assert [path for path in kept if not path.exists()] == []
    assert cli.main(["clean", "--history"]) == 0
    assert not (root / "reports/history").exists()


def test_clean_leaves_what_is_anothers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a project that is not Phase, `build` and `.tox` are not ours."""
    root = tmp_path / "theirs"
    kept = [root / "build/x", root / ".tox/x", root / "dist/x", root / "lab/__pycache__/x"]
    for path in (*kept, root / "reports/out/x"):
        path.parent.mkdir(parents=True)
        path.touch()
    (root / "pyproject.toml").write_text('[project]\nname = "theirs"\n')
    monkeypatch.setenv("PHASE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(root)
    assert cli.main(["clean"]) == 0
    assert [path for path in kept if not path.exists()] == []
    assert not (root / "reports/out").exists()


def test_commands_work_on_the_project_one_stands_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    record = Record(
        scenario="theirs",
        arch="arm64",
        topology="",
        outcome="passed",
        nodeid="a",
        nodes=[Node("one", "arm64")],
    )
    records = tmp_path / "reports/out/records"
    records.mkdir(parents=True)
    (records / "one.json").write_bytes(msgspec.json.encode(record))
    (tmp_path / "deep/er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep/er")
    assert cli.main(["graph", "theirs"]) == 0
    assert "one" in capsys.readouterr().out
    assert cli.main(["report"]) == 0
    said = capsys.readouterr().out
    assert "npm install allure@" in said
    assert (tmp_path / "reports/out/matrix.html").exists()
    assert (tmp_path / "reports/history/boots.jsonl").exists()


def test_up_keeps_the_first_scenario_until_it_is_interrupted(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["lab.plugin"]\n')
    (tmp_path / "test_inner.py").write_text(
        "def test_one(lab):\n    lab.segment('lan')\n\ndef test_two(lab):\n    raise SystemExit('not me')\n"
    )
    scenario = str(tmp_path / "test_inner.py")
    process = subprocess.Popen(
        [sys.executable, "-m", "lab", "up", scenario, "-p", "no:cacheprovider", f"--lab-out={tmp_path}"],
        env=os.environ | {"LAB_LEASES": str(tmp_path / "leases")},
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # Also where this run is a shell's background job, which ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "no machine is on" in line:
                break
        else:
            pytest.fail("it held nothing")
        time.sleep(1.5)  # the last line comes a moment before it waits
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert "lab: let go" in rest
    assert "1 passed" in rest
    assert "not me" not in rest


def test_up_gives_a_scenario_as_long_as_tox_does(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, words: ran.append(words))
    with pytest.raises(TypeError):  # execv comes back only here
        cli.main(["up", "scenarios/test_loop.py", "--lab-arch=x86_64"])
    told = configparser.ConfigParser(interpolation=None)
    told.read(PROJECT / "tox.ini")
    (timeout,) = {
        word for word in told["testenv:lab-{x86_64,arm64}"]["commands"].split() if "--timeout=" in word
    }
    assert timeout in ran[0]
    assert ran[0][-2:] == ["scenarios/test_loop.py", "--lab-arch=x86_64"]
