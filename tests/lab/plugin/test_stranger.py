"""What a project that is not ours does to the plugin: killed workers, odd names, other plugins."""

import json
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from lab.report.run import read, read_records
from tests.lab.plugin.conftest import CONFTEST, run

pytest_plugins = ["pytester"]

KILLED = """
    import os, signal
    from pathlib import Path
    import pytest

    @pytest.mark.lab(vcpus=0, memory=0)
    @pytest.mark.parametrize("arch", ["arm64"])
    def test_dies(lab, arch, kernel):
        if Path("kill").exists():
            os.kill(os.getpid(), signal.SIGKILL)

    @pytest.mark.lab(vcpus=0, memory=0)
    def test_lives(lab):
        pass
"""


def outcomes(directory: Path = Path("out")) -> dict[str, str]:
    return {record.scenario: record.outcome for record in read_records(directory)}


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_killed_worker_leaves_no_pass(pytester: pytest.Pytester, workers: str) -> None:
    """Not the old one either."""
    run(pytester, KILLED, "-n", "1")
    assert outcomes() == {"test_dies": "passed", "test_lives": "passed"}
    Path("kill").touch()
    run(pytester, KILLED, "-n", workers)
    told = outcomes()
    assert told["test_dies"] == "error"
    # A second worker took over what was left; without one, it did not run.
    assert told["test_lives"] == ("passed" if workers == "1" else "not run")
    dead = next(record for record in read_records(Path("out")) if record.scenario == "test_dies")
    assert (dead.owner, dead.arch) == ("infrastructure", "arm64")
    assert "killed" in dead.what


def test_a_killed_worker_is_missed_without_an_old_record(pytester: pytest.Pytester) -> None:
    Path("kill").touch()
    run(pytester, KILLED, "-n", "0")
    assert outcomes() == {"test_dies": "error", "test_lives": "not run"}


def test_a_record_that_is_lost_did_not_pass(pytester: pytest.Pytester) -> None:
    run(pytester, KILLED)
    next(Path("out/records").glob("*dies*")).unlink()
    assert outcomes() == {"test_dies": "not run", "test_lives": "passed"}


def test_a_deleted_test_is_not_reported(pytester: pytest.Pytester) -> None:
    run(pytester, KILLED)
    run(pytester, "def test_new(lab): pass")
    assert outcomes() == {"test_new": "passed"}


def test_a_run_without_scenarios_leaves_results_alone(pytester: pytest.Pytester) -> None:
    run(pytester, KILLED)
    run(pytester, "def test_other(): pass")
    run(pytester, KILLED, "--collect-only")
    assert outcomes() == {"test_dies": "passed", "test_lives": "passed"}


def test_two_runs_do_not_share_results(pytester: pytest.Pytester) -> None:
    source = """
    import subprocess, sys
    import pytest

    @pytest.mark.lab(vcpus=0, memory=0)
    def test_outer(lab):
        words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--lab-out=out", __file__]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 4, done.stdout
        assert "another run writes its results to" in done.stderr
    """
    result, (record,) = run(pytester, source)
    result.assert_outcomes(passed=1)
    assert record["outcome"] == "passed"


@pytest.mark.parametrize(
    "body",
    [
        "with subtests.test('one'): assert 0, 'this one'",
        "with subtests.test('one'): raise OSError('this one')",
    ],
)
def test_a_failed_subtest_fails_its_test(pytester: pytest.Pytester, body: str) -> None:
    source = f"""
    def test_parts(lab, subtests, kernel):
        lab.vm("one", arch="x86_64", kernel=kernel, segments=(lab.segment("lan"),))
        {body}
        with subtests.test("two"):
            pass
    """
    _, (record,) = run(pytester, source)
    assert (record["outcome"], record["owner"]) == ("failed", "product")
    assert "this one" in record["what"]
    assert list(Path("out/evidence").glob("*test_parts*/lan.pcapng"))


def test_a_failed_part_of_a_unittest_fails_it(pytester: pytest.Pytester) -> None:
    source = """
    import unittest
    import pytest

    class TestParts(unittest.TestCase):
        @pytest.fixture(autouse=True)
        def machines(self, lab):
            self.lab = lab

        def test_parts(self):
            for number in range(3):
                with self.subTest(number=number):
                    self.assertNotEqual(number, 1)
    """
    _, (record,) = run(pytester, source)
    assert record["outcome"] == "failed"


def test_names_with_an_at_sign_have_a_record_each(pytester: pytest.Pytester) -> None:
    source = """
    import pytest

    @pytest.mark.lab(vcpus=0, memory=0, group="pair")
    @pytest.mark.parametrize("mail", ["a@b", "a@c"])
    def test_sends(lab, mail):
        assert mail != "a@c"
    """
    result, records = run(pytester, source, "-n", "1", "--dist=loadgroup")
    result.assert_outcomes(passed=1, failed=1)
    name = "test_names_with_an_at_sign_have_a_record_each.py::test_sends"
    assert {record["nodeid"] for record in records} == {f"{name}[a@b]", f"{name}[a@c]"}
    result.stdout.fnmatch_lines([f"python -m pytest '{name}[[]a@c]'*"])


def test_directories_with_an_at_sign_have_a_record_each(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    for name in ("x@1", "x@2"):
        pytester.mkdir(name).joinpath("test_it.py").write_text("def test_one(lab): pass\n")
    pytester.runpytest_subprocess("-p", "no:cacheprovider", "--lab-out=out", "--import-mode=importlib")
    assert {record.nodeid for record in read_records(Path("out"))} == {
        "x@1/test_it.py::test_one",
        "x@2/test_it.py::test_one",
    }


def test_leases_that_cannot_be_written_fail_the_scenario(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LAB_LEASES", str(tmp_path / "file" / "leases"))
    result, records = run(pytester, "def test_one(lab): pass\ndef test_other(): pass")
    result.assert_outcomes(errors=1, passed=1)
    assert "set LAB_LEASES" in records[0]["what"]
    assert "INTERNALERROR" not in result.stdout.str()


@pytest.mark.parametrize("workers", ["0", "1"])
def test_results_that_cannot_be_written_are_one_clear_line(pytester: pytest.Pytester, workers: str) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile("def test_one(lab): pass")
    Path("file").touch()
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--lab-out=file/out", "-n", workers)
    said = result.stdout.str() + result.stderr.str()
    assert "INTERNALERROR" not in said
    assert "name another directory with --lab-out" in said
    assert result.ret != 0


def test_an_exception_without_words_ends_no_run(pytester: pytest.Pytester) -> None:
    source = """
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no words")

    def test_one(lab):
        raise Mute

    def test_two(lab):
        pass
    """
    result, records = run(pytester, source)
    result.assert_outcomes(failed=1, passed=1)
    assert {record["what"] for record in records} == {"Mute, whose text cannot be had: RuntimeError", ""}


def test_a_record_of_the_wrong_types_is_its_scenarios_mistake(pytester: pytest.Pytester) -> None:
    source = """
    def test_one(lab, record):
        facts = dict(arch="arm64", topology="one", kernel="6.1", accel="tcg", firmware="uefi")
        record(scenario=5, phases={}, **facts)
    """
    _, (record,) = run(pytester, source)
    assert (record["outcome"], record["owner"]) == ("failed", "misuse")


def test_a_lab_that_is_asked_for_late_has_a_lease_and_a_record(pytester: pytest.Pytester) -> None:
    source = """
    import os
    from pathlib import Path

    def test_one(request, kernel):
        lab = request.getfixturevalue("lab")
        assert len(list(Path(os.environ["LAB_LEASES"]).glob("lease-*"))) == 1
        lab.vm("one", arch="x86_64", kernel=kernel, segments=(lab.segment("lan"),))
        assert not "booted"
    """
    result, (record,) = run(pytester, source)
    result.assert_outcomes(failed=1)
    assert (record["outcome"], record["topology"]) == ("failed", "one x86_64")
    assert list(Path("out/evidence").glob("*test_one*/lan.pcapng"))
    assert not list(Path(os.environ["LAB_LEASES"]).glob("lease-*"))


def test_a_module_keeps_its_machines(pytester: pytest.Pytester) -> None:
    source = """
    import os
    from pathlib import Path
    import pytest

    pytestmark = pytest.mark.lab(memory=300)

    @pytest.fixture(scope="module")
    def machine(module_lab, tmp_path_factory):
        kernel = tmp_path_factory.mktemp("kernel") / "kernel"
        kernel.touch()
        with Path("made").open("a") as made:
            made.write("x")
        return module_lab.vm("one", arch="x86_64", kernel=kernel, segments=(module_lab.segment("lan"),))

    @pytest.mark.parametrize("number", range(3))
    def test_uses(machine, number):
        (lease,) = Path(os.environ["LAB_LEASES"]).glob("lease-*")
        assert '"memory": 300' in lease.read_text()
        assert number != 1
    """
    result, records = run(pytester, source)
    result.assert_outcomes(passed=2, failed=1)
    assert Path("made").read_text() == "x"
    assert sorted(record["outcome"] for record in records) == ["failed", "passed", "passed"]
    assert {record["topology"] for record in records} == {"one x86_64"}
    assert len(list(Path("out/evidence").glob("*test_uses*/lan.pcapng"))) == 1
    assert not list(Path(os.environ["LAB_LEASES"]).glob("lease-*"))


def test_two_labs_at_once_are_a_mistake_and_wait_for_nobody(pytester: pytest.Pytester) -> None:
    result, (record,) = run(pytester, "def test_one(lab, module_lab): pass")
    result.assert_outcomes(errors=1)
    assert record["owner"] == "misuse"


def test_a_lab_for_a_module_is_the_fixtures_mistake_and_takes_no_lease(pytester: pytest.Pytester) -> None:
    source = """
    import pytest

    @pytest.fixture(scope="module")
    def machine(lab):
        return lab

    @pytest.mark.lab(memory=10**9)
    def test_one(machine):
        pass
    """
    result, (record,) = run(pytester, source)
    result.assert_outcomes(errors=1)
    assert record["owner"] == "misuse"
    assert "ScopeMismatch" in record["what"]
    result.stdout.fnmatch_lines(["*module_lab lasts for a module*"])


def test_junit_names_who_has_to_act(pytester: pytest.Pytester) -> None:
    source = """
    from lab.errors import MachineError

    def test_one(lab):
        raise MachineError("it hangs")

    def test_two(lab):
        pass
    """
    run(pytester, source, "--junitxml=junit.xml")
    told = {
        case.get("name"): {one.get("name"): one.get("value") for one in case.iter("property")}
        for case in ElementTree.parse("junit.xml").iter("testcase")  # noqa: S314  our own
    }
    assert told == {"test_one": {"owner": "machine", "what": "it hangs"}, "test_two": {}}


def test_raw_bytes_of_a_console_are_kept(pytester: pytest.Pytester) -> None:
    source = """
    import socket
    from lab.console import Console

    def test_boots(lab, kernel, tmp_path):
        vm = lab.vm("one", arch="x86_64", kernel=kernel)
        end, ours = socket.socketpair()
        vm._console, vm.power_on = Console("one", ours, tmp_path / "log"), 1.0
        end.sendall(b"\\x1b[31m\\xff\\x00red\\n")
        vm.console.wait_line("red", timeout=5)
        end.close()
        assert not "green"
    """
    run(pytester, source)
    (raw,) = Path("out/evidence").glob("*test_boots*/one.console.raw")
    assert raw.read_bytes() == b"\x1b[31m\xff\x00red\n"


def test_one_process_keeps_pytests_order(pytester: pytest.Pytester) -> None:
    """Sorted across modules, module fixtures would be set up again and again."""
    source = """
    from pathlib import Path
    import pytest

    @pytest.fixture(scope="module")
    def costly():
        with Path("order").open("a") as order:
            order.write("setup ")

    @pytest.mark.lab(seconds={first})
    def test_a(costly): pass

    @pytest.mark.lab(seconds={second})
    def test_b(costly): pass
    """
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        test_one=source.format(first=1, second=60), test_two=source.format(first=30, second=2)
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider", "--lab-out=out").assert_outcomes(passed=4)
    assert Path("order").read_text().split() == ["setup", "setup"]


def test_what_passes_when_another_plugin_runs_it_again_is_flaky(pytester: pytest.Pytester) -> None:
    """As pytest-rerunfailures does: the same item through all its phases once more."""
    again = """
import pytest
from _pytest.runner import runtestprotocol

@pytest.hookimpl
def pytest_runtest_protocol(item, nextitem):
    for _ in range(2):
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    return True
"""
    (pytester.path / "again.py").write_text(again)
    source = """
    from pathlib import Path

    def test_one(lab):
        tried = Path("tried").exists()
        Path("tried").touch()
        assert tried, "the first time"
    """
    _, (record,) = run(pytester, source, "-p", "again")
    assert record["outcome"] == "flaky"
    assert "the first time" in record["tries"][0]


def test_the_manifest_names_every_scenario_of_the_run(pytester: pytest.Pytester) -> None:
    run(pytester, KILLED, "-n", "2")
    manifest = read(Path("out"))
    assert manifest is not None
    assert [test.scenario for test in manifest.expected] == ["test_dies", "test_lives"]
    told: dict[str, Any] = json.loads(Path("out/run.json").read_text())
    assert told["run"] == manifest.run
