"""The plugin inside a pytest of its own."""

import json
import platform
from pathlib import Path

import msgspec
import pytest

from lab import host
from lab.doctor.accel import Ladder, Rung
from lab.report import records as records_of_run
from lab.report.drawing import Track
from tests.lab.plugin.conftest import run

pytest_plugins = ["pytester"]


def test_a_scenario_is_recorded(pytester: pytest.Pytester) -> None:
    source = """
    import pytest

    @pytest.mark.parametrize("arch", ["x86_64", "arm64"])
    def test_boots(lab, record, arch, kernel):
        lab.vm("one", arch=arch, kernel=kernel)
        facts = dict(kernel="6.1", accel="tcg", firmware="uefi", mode="local")
        record(scenario="a", arch=arch, topology="alone", phases={"init": 1.5}, **facts)
    """
    result, records = run(pytester, source)
    result.assert_outcomes(passed=2)
    assert {record["arch"] for record in records} == {"x86_64", "arm64"}
    assert {record["outcome"] for record in records} == {"passed"}
    assert records[0]["phases"] == {"init": 1.5}
    assert (records[0]["firmware"], records[0]["mode"]) == ("uefi", "local")
    assert set(records[0]) == set(msgspec.structs.asdict(msgspec.convert(records[0], records_of_run.Record)))


def test_records_of_each_architecture_lie_by_themselves(pytester: pytest.Pytester) -> None:
    """What is for no architecture is with those of the host's own; Allure's results are labelled alike."""
    pytester.makepyfile("""
    import pytest

    @pytest.mark.parametrize("arch", ["x86_64", "arm64"])
    def test_it(lab, arch):
        pass

    def test_of_none(lab):
        pass
    """)
    result = pytester.runpytest_subprocess(
        "-p", "lab.plugin", "-p", "no:cacheprovider", "--lab-out=out/{arch}", "--alluredir=allure"
    )
    result.assert_outcomes(passed=3)
    own = host.ARCHES[platform.machine()]
    records = {path: len([*(path / "records").iterdir()]) for path in (pytester.path / "out").iterdir()}
    expected = {"x86_64": 1, "arm64": 1}
    expected[own] += 1
    assert {path.name: number for path, number in records.items()} == expected
    results = [json.loads(path.read_bytes()) for path in (pytester.path / "allure").glob("*-result.json")]
    labels = [label["value"] for told in results for label in told["labels"] if label["name"] == "arch"]
    assert sorted(labels) == sorted([*("x86_64", "arm64"), own])


def test_a_record_says_how_busy_it_was(pytester: pytest.Pytester) -> None:
    """With what its machines used, which are processes of their own."""
    source = """
    import subprocess, sys, time

    def test_waits(lab):
        time.sleep(1)

    def test_works(lab):
        code = "import time\\nwhile time.process_time() < 1: pass"
        subprocess.run([sys.executable, "-c", code], check=True)
    """
    _, records = run(pytester, source)
    busy = {record["scenario"]: record["busy"] for record in records}
    assert busy["test_waits"] < busy["test_works"] <= 1.1


def test_the_rung_that_broke_is_recorded(
    pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = host.ARCHES[platform.machine()]
    monkeypatch.delenv("LAB_ACCEL", raising=False)
    monkeypatch.setenv("PHASE_CACHE", str(tmp_path))
    slow = Rung("runs a CPU", ok=False, detail="100000 loops in 110.00 ms")
    host.verdict(tmp_path / "accelerator.json", ask=lambda: Ladder("tcg", (slow,), "Ask for more."))
    source = """
    import pytest

    @pytest.mark.parametrize("arch", ["x86_64", "arm64"])
    def test_boots(lab, arch, kernel):
        lab.vm("one", arch=arch, kernel=kernel)
    """
    _, records = run(pytester, source)
    told = {record["arch"]: record["refused"] for record in records}
    assert told.pop(own) == "runs a CPU: 100000 loops in 110.00 ms"
    assert list(told.values()) == [f"the host is {own}"]


def test_one_that_says_nothing_is_recorded_too(pytester: pytest.Pytester) -> None:
    source = """
    import pytest

    @pytest.mark.parametrize("arch", ["arm64"])
    def test_boots(lab, arch, kernel):
        lab.vm("one", arch=arch, kernel=kernel)
        assert not "booted"
    """
    result, (record,) = run(pytester, source)
    result.assert_outcomes(failed=1)
    assert record["scenario"] == "test_boots"
    assert (record["arch"], record["topology"], record["accel"]) == ("arm64", "one arm64", "tcg")
    assert record["outcome"] == "failed"


def test_one_that_does_not_come_to_it_is_recorded_too(pytester: pytest.Pytester) -> None:
    source = """
    import pytest

    @pytest.mark.parametrize("arch", ["arm64"])
    def test_boots(broken, lab, arch):
        pass

    def test_skipped(lab):
        pytest.skip("not here")
    """
    result, records = run(pytester, source)
    result.assert_outcomes(errors=1, skipped=1)
    assert {(record["scenario"], record["arch"], record["outcome"]) for record in records} == {
        ("test_boots", "arm64", "error"),
        ("test_skipped", "", "skipped"),
    }


def test_a_failing_teardown_is_no_success(pytester: pytest.Pytester) -> None:
    source = """
    import pytest

    @pytest.fixture
    def leaky(lab):
        yield
        raise RuntimeError("left something")

    def test_boots(leaky):
        pass
    """
    result, (record,) = run(pytester, source)
    result.assert_outcomes(passed=1, errors=1)
    assert record["outcome"] == "error"


def test_other_tests_are_none_of_its_business(pytester: pytest.Pytester) -> None:
    result, records = run(pytester, "def test_other(): pass")
    result.assert_outcomes(passed=1)
    assert records == []


def test_a_failure_has_its_evidence(pytester: pytest.Pytester) -> None:
    source = """
    from lab.errors import InfrastructureError

    def test_boots(lab, kernel):
        lan = lab.segment("lan")
        lab.vm("one", arch="x86_64", kernel=kernel, segments=(lan,))
        raise InfrastructureError("the cable is out", evidence="no light")
    """
    result, (record,) = run(pytester, source, "--alluredir=allure")
    assert record["outcome"] == "failed"
    result.stdout.fnmatch_lines(
        [
            "*the cable is out*",
            "*no light*",
            "*lab: one*",
            "QMP status: off",
            "reproduce: qemu-system-x86_64 *",
        ]
    )
    (capture,) = Path("out/evidence").glob("*/lan.pcapng")
    assert capture.read_bytes()[:4] == b"\x0a\x0d\x0d\x0a"
    (told,) = Path("allure").glob("*-result.json")
    allure = json.loads(told.read_text())
    names = {attachment["name"] for attachment in allure["attachments"]}
    assert names == {"evidence of one", "frames on lan"}
    assert {"name": "owner", "value": "infrastructure"} in allure["labels"]


def test_success_keeps_no_evidence(pytester: pytest.Pytester) -> None:
    source = """
    def test_boots(lab, kernel):
        lab.vm("one", arch="x86_64", kernel=kernel, segments=(lab.segment("lan"),))
    """
    result, (record,) = run(pytester, source)
    result.assert_outcomes(passed=1)
    assert record["outcome"] == "passed"
    assert not Path("out/evidence").exists()


def test_only_what_the_host_failed_is_tried_again(pytester: pytest.Pytester) -> None:
    source = """
    from pathlib import Path
    import pytest
    from lab.errors import InfrastructureError, MachineError

    @pytest.mark.parametrize("error", [InfrastructureError, MachineError, AssertionError])
    def test_boots(lab, error):
        tries = Path(error.__name__)
        count = int(tries.read_text()) if tries.exists() else 0
        tries.write_text(str(count + 1))
        if count == 0:
            raise error("the first time")
    """
    result, records = run(pytester, source, "--lab-retries=1", "--alluredir=allure")
    counts = {name: Path(name).read_text() for name in ("InfrastructureError", "MachineError")}
    assert counts == {"InfrastructureError": "2", "MachineError": "1"}
    assert Path("AssertionError").read_text() == "1"
    assert sorted(record["outcome"] for record in records) == ["failed", "failed", "flaky"]
    (flaky,) = (record for record in records if record["outcome"] == "flaky")
    assert "the first time" in flaky["tries"][0]
    result.stdout.fnmatch_lines(["*2 failed, 1 flaky*"])
    told = [json.loads(path.read_text()) for path in Path("allure").glob("*-result.json")]
    labels = [label for one in told for label in one["labels"] if label["name"] == "flaky"]
    assert len(labels) == 1
    assert "the first time" in labels[0]["value"]


def test_a_failed_assertion_is_not_tried_again_because_its_teardown_met_the_host(
    pytester: pytest.Pytester,
) -> None:
    source = """
    from pathlib import Path
    import pytest
    from lab.errors import InfrastructureError

    @pytest.fixture
    def host(lab):
        yield
        raise InfrastructureError("the cable is gone, too")

    def test_boots(lab, host):
        with Path("tries").open("a") as tries:
            tries.write("x")
        assert False, "the product is wrong"
    """
    result, records = run(pytester, source, "--lab-retries=2")
    assert Path("tries").read_text() == "x"
    result.assert_outcomes(failed=1, errors=1)
    assert [(record["owner"], record["tries"]) for record in records] == [("product", [])]


def test_a_second_failure_of_the_host_stays_a_failure(pytester: pytest.Pytester) -> None:
    source = """
    from lab.errors import InfrastructureError

    def test_boots(lab):
        raise InfrastructureError("every time")
    """
    result, (record,) = run(pytester, source, "--lab-retries=2")
    result.assert_outcomes(failed=1)
    assert record["outcome"] == "failed"
    assert len(record["tries"]) == 2


def test_nothing_is_tried_again_unasked(pytester: pytest.Pytester) -> None:
    source = """
    from lab.errors import InfrastructureError

    def test_boots(lab):
        raise InfrastructureError("once")
    """
    result, (record,) = run(pytester, source)
    result.assert_outcomes(failed=1)
    assert record["tries"] == []


def test_a_failure_shows_the_scenarios_own_lines(pytester: pytest.Pytester) -> None:
    source = """
    def test_boots(lab, kernel):
        vm = lab.vm("one", arch="x86_64", kernel=kernel)
        lab.vm("one", arch="x86_64", kernel=kernel)
    """
    result, _ = run(pytester, source)
    shown = result.stdout.str()
    assert ">       lab.vm(" in shown
    assert "def _check" not in shown
    result.stdout.fnmatch_lines(["*lab: again*", "python -m pytest test_*.py::test_boots --lab-seed=0"])


def test_what_takes_long_is_said_past_the_capture(pytester: pytest.Pytester) -> None:
    source = """
    import logging

    def test_one(lab):
        logging.getLogger("boot").info("building seed-arm64")
        logging.getLogger("other").info("not this")
    """
    result, _ = run(pytester, source)
    result.assert_outcomes(passed=1)
    assert "boot: building seed-arm64" in result.stderr.lines
    result.stderr.no_fnmatch_line("*not this*")


def test_a_machine_that_died_unseen_fails_its_scenario(pytester: pytest.Pytester) -> None:
    source = """
    import socket

    from lab.console import Console

    def test_boots(lab, kernel, tmp_path):
        vm = lab.vm("one", arch="x86_64", kernel=kernel)
        end, ours = socket.socketpair()
        vm._console, vm.power_on = Console("one", ours, tmp_path / "log"), 1.0
        end.sendall(b"BUG: kernel NULL pointer dereference, address: 0\\nalive\\n")
        vm.console.wait_line("alive", timeout=5)
        end.close()
    """
    result, (record,) = run(pytester, source)
    result.assert_outcomes(failed=1)
    assert (record["outcome"], record["owner"]) == ("failed", "machine")
    result.stdout.fnmatch_lines(["*kernel oops: BUG: kernel NULL pointer*"])


def test_evidence_that_cannot_be_had_ends_no_run(pytester: pytest.Pytester) -> None:
    source = """
    def test_boots(lab, kernel):
        lab.vm("one", arch="x86_64", kernel=kernel).power_on = 1.0
        lab.vm("two", arch="x86_64", kernel=kernel)
        raise RuntimeError("why")
    """
    result, (record,) = run(pytester, source)
    result.assert_outcomes(failed=1)
    assert record["what"] == "why"
    result.stdout.fnmatch_lines(["*lab: no evidence of one*", "*one has not been started*", "*lab: two*"])


def test_cables_draw_from_the_seed_that_is_given(pytester: pytest.Pytester) -> None:
    result, _ = run(pytester, "def test_boots(lab): assert lab.seed == 7, lab.seed", "--lab-seed=7")
    result.assert_outcomes(passed=1)


def test_what_a_scenario_finds_on_a_segment_that_ended_is_the_hosts(pytester: pytest.Pytester) -> None:
    source = """
    import time

    def test_reaches(lab):
        lan = lab.segment("lan")
        node = lan.switch.add_service(lambda frame: [], "node")
        lan.link("node").drop = lambda frame: 1 / 0
        node.send(bytes(60))
        while lan.switch.failure is None:
            time.sleep(0.01)
        assert not "an answer"
    """
    result, (record,) = run(pytester, source)
    result.assert_outcomes(failed=1, errors=1)
    assert record["owner"] == "infrastructure"
    assert "segment lan has ended" in record["what"]


def test_every_failure_has_the_owner_that_can_act(pytester: pytest.Pytester) -> None:
    source = """
    import asyncio
    import pytest
    from lab.qemu.loop import run
    from lab.topology import Lab

    def test_asserts(lab):
        assert not "booted"

    def test_says_so(lab):
        pytest.fail("this is not it")

    def test_hits_a_mistake_in_the_lab(lab):
        lab.like(None, "two")

    def test_waits_for_what_the_lab_runs(lab):
        run(asyncio.sleep(9), timeout=0.01)

    def test_opens_what_is_not_there(lab):
        open("nowhere")

    def test_is_given_nothing(broken, lab):
        pass

    @pytest.mark.timeout(1)
    def test_waits_for_ever_in_the_lab(lab):
        run(asyncio.sleep(60), timeout=60)

    @pytest.mark.timeout(1)
    def test_waits_for_ever_elsewhere(lab):
        import time
        time.sleep(60)
    """
    _, records = run(pytester, source)
    assert {record["scenario"].removeprefix("test_"): record["owner"] for record in records} == {
        "asserts": "product",
        "says_so": "product",
        "hits_a_mistake_in_the_lab": "infrastructure",
        "waits_for_what_the_lab_runs": "infrastructure",
        "opens_what_is_not_there": "product",
        "is_given_nothing": "misuse",
        "waits_for_ever_in_the_lab": "infrastructure",
        "waits_for_ever_elsewhere": "product",
    }


def test_a_clone_is_recorded_as_one_and_not_as_a_boot(pytester: pytest.Pytester) -> None:
    source = """
    import socket

    import pytest
    from lab.console import Console

    @pytest.mark.parametrize("server", ["serving", ""])
    def test_goes_on(lab, kernel, tmp_path, server):
        for name, stage in {"client": "network", "server": server}.items():
            vm = lab.vm(name, arch="x86_64", kernel=kernel)
            end, ours = socket.socketpair()
            vm._console, vm.power_on, vm.stage = Console(name, ours, tmp_path / name), 1.0, stage
            end.sendall(b'a-mark {"step":"init","outcome":"ok","t":1}\\nover\\n')
            vm.console.wait_line("over", timeout=5)
            end.close()
    """
    _, records = run(pytester, source)
    told = {record["nodeid"].partition("[")[2]: record for record in records}
    assert {name: (record["stage"], record["booted"]) for name, record in told.items()} == {
        "serving]": ("client network, server serving", False),
        "]": ("client network", True),
    }
    tracks = msgspec.convert(told["]"]["tracks"], list[Track])
    assert [track.label for track in tracks] == ["client from network", "server x86_64"]


def test_phases_are_steps_as_long_as_they_took(pytester: pytest.Pytester) -> None:
    source = """
    import time

    def test_boots(lab, record):
        began = time.time() - 60
        facts = dict(scenario="a", arch="arm64", topology="one", kernel="6.1", accel="tcg", firmware="uefi")
        record(phases={"kernel": 1.5, "init": 0.25}, power_on=time.monotonic() - 60, **facts)
        open("began", "w").write(str(began))
    """
    result, _ = run(pytester, source, "--alluredir=allure")
    result.assert_outcomes(passed=1)
    began = float(Path("began").read_text()) * 1000
    (told,) = (json.loads(path.read_text()) for path in Path("allure").glob("*-result.json"))
    steps = [(step["name"], step["start"] - began, step["stop"] - began) for step in told["steps"]]
    assert [name for name, _, _ in steps] == ["kernel: 1.50 s", "init: 0.25 s"]
    assert [start for _, start, _ in steps] == pytest.approx([0, 1500], abs=500)
    assert [stop - start for _, start, stop in steps] == pytest.approx([1500, 250], abs=2)


def test_it_is_run_again_as_it_was_run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_ACCEL", "tcg")
    monkeypatch.setenv("LAB_TIMEOUT_FACTOR", "2")
    result, _ = run(pytester, "def test_boots(lab): assert 0", "--timeout=900", "--lab-seed=3")
    result.stdout.fnmatch_lines(
        ["LAB_ACCEL=tcg LAB_TIMEOUT_FACTOR=2 python -m pytest *::test_boots --lab-seed=3 --timeout=900"]
    )


def test_a_screen_is_attached_to_a_failure(pytester: pytest.Pytester) -> None:
    source = """
    from lab.qemu.vm import VM

    def test_boots(lab, kernel, monkeypatch):
        for name, display in {"seen": True, "blind": False}.items():
            lab.vm(name, arch="x86_64", kernel=kernel, display=display)
        VM.running = property(lambda vm: True)
        VM.qmp = lambda vm, *_, **__: {"status": "running"}
        VM.screen = lambda vm: b"\\x89PNG" + vm.name.encode()
        assert not "booted"
    """
    run(pytester, source, "--alluredir=allure")
    (told,) = (json.loads(path.read_text()) for path in Path("allure").glob("*-result.json"))
    found = {each["name"]: each for each in told["attachments"] if each["name"].startswith("screen")}
    assert list(found) == ["screen of seen"]
    assert found["screen of seen"]["type"] == "image/png"
    assert Path("allure", found["screen of seen"]["source"]).read_bytes() == b"\x89PNGseen"
