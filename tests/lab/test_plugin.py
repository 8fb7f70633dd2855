"""The plugin inside a pytest of its own."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["pytester"]

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


def run(
    pytester: pytest.Pytester, source: str, *arguments: str
) -> tuple[pytest.RunResult, list[dict[str, Any]]]:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(source)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--lab-out=out", *arguments)
    records = [json.loads(path.read_text()) for path in sorted(Path("out/records").glob("*"))]
    return result, records


def test_a_scenario_is_recorded(pytester: pytest.Pytester) -> None:
    source = """
    import pytest

    @pytest.mark.parametrize("arch", ["x86_64", "arm64"])
    def test_boots(lab, record, arch, kernel):
        lab.vm("one", arch=arch, kernel=kernel)
        record(scenario="a", arch=arch, topology="alone", phases={"init": 1.5}, kernel="6.1", accel="tcg")
    """
    result, records = run(pytester, source)
    result.assert_outcomes(passed=2)
    assert {record["arch"] for record in records} == {"x86_64", "arm64"}
    assert {record["outcome"] for record in records} == {"passed"}
    assert records[0]["phases"] == {"init": 1.5}
    keys = {"scenario", "arch", "topology", "outcome", "phases", "accel", "kernel", "nodeid", "duration"}
    assert set(records[0]) == keys


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
    (capture,) = Path("out/evidence").glob("*/lan.pcap")
    assert capture.read_bytes()[:4] == b"\xd4\xc3\xb2\xa1"
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
