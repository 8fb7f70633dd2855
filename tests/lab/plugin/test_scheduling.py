"""Which scenarios run when, and beside which, inside a pytest of its own."""

from pathlib import Path

import msgspec
import pytest

from lab.report.history import Run
from lab.report.records import Record
from tests.lab.plugin.conftest import run

pytest_plugins = ["pytester"]


def test_two_workers_never_lease_more_than_the_host_has(pytester: pytest.Pytester) -> None:
    """Each scenario takes the whole host: no two are inside at once, though two workers run them."""
    source = """
    import os, time
    import pytest

    @pytest.mark.lab(vcpus=1000, memory=1)
    @pytest.mark.parametrize("number", range(4))
    def test_alone(lab, number):
        inside = os.open("inside", os.O_CREAT | os.O_EXCL)
        time.sleep(0.1)
        os.close(inside)
        os.unlink("inside")
        with open("workers", "a") as file:
            file.write(os.environ["PYTEST_XDIST_WORKER"] + " ")
    """
    result, records = run(pytester, source, "-n", "2", "--maxschedchunk=1")
    result.assert_outcomes(passed=4)
    assert len(records) == 4
    assert set(Path("workers").read_text().split()) == {"gw0", "gw1"}


def test_a_group_stays_on_one_worker(pytester: pytest.Pytester) -> None:
    source = """
    import os
    import pytest

    @pytest.mark.lab(vcpus=0, memory=0, group="stage")
    @pytest.mark.parametrize("number", range(6))
    def test_together(lab, number):
        with open("workers", "a") as file:
            file.write(os.environ["PYTEST_XDIST_WORKER"] + " ")
    """
    result, _ = run(pytester, source, "-n", "2", "--dist=loadgroup")
    result.assert_outcomes(passed=6)
    assert len(set(Path("workers").read_text().split())) == 1


@pytest.mark.parametrize(
    "words",
    [
        *("vcpus=-1", "vcpus='two'", "vcpus=float('nan')", "seconds='long'", "cpus=2", "3", "group=3"),
        *("boards=5", "boards='name'", "boards=[1]"),
    ],
)
def test_a_need_that_makes_no_sense_fails_that_scenario_alone(pytester: pytest.Pytester, words: str) -> None:
    source = f"""
    import pytest

    @pytest.mark.lab({words})
    def test_wrong(lab):
        pass

    def test_right(lab):
        pass
    """
    result, records = run(pytester, source)
    result.assert_outcomes(passed=1, errors=1)
    assert {(record["outcome"], record["owner"]) for record in records} == {
        ("error", "misuse"),
        ("passed", ""),
    }


def test_workers_take_the_longest_first(pytester: pytest.Pytester) -> None:
    """What has not run yet is as long as its marker says; all workers have the same order."""
    seconds = {"test_short[wide]": 1.0, "test_long[wide]": 60.0, "test_middle": 20.0, "test_overtaken": 5.0}
    runs = [
        Run(
            commit="c",
            record=Record(
                scenario=name,
                arch="arm64",
                topology="",
                outcome="passed",
                nodeid=f"test_workers_take_the_longest_first.py::{name}",
                duration=took,
            ),
        )
        for name, took in seconds.items()
    ]
    kept = pytester.path / "reports" / "history"
    kept.mkdir(parents=True)
    (kept / "boots.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(runs))
    source = """
    from pathlib import Path

    import pytest

    # What has this in common, pytest by itself would run together.
    @pytest.fixture(scope="session", params=["wide"])
    def common():
        pass

    def note(name):
        with Path("order").open("a") as file:
            file.write(name + " ")

    def test_short(common):
        note("short")

    def test_middle():
        note("middle")

    def test_long(common):
        note("long")

    def test_new():
        note("new")

    @pytest.mark.lab(seconds=45)
    def test_told():
        note("told")

    @pytest.mark.lab(seconds=90)
    def test_overtaken():
        note("overtaken")
    """
    result, _ = run(pytester, source, "-n", "1", "--dist=loadgroup")
    result.assert_outcomes(passed=6)
    order = Path("order").read_text().split()
    assert order == ["long", "told", "middle", "new", "overtaken", "short"]


def test_a_group_does_not_change_the_name(pytester: pytest.Pytester) -> None:
    source = """
    import pytest

    @pytest.mark.lab(group="pair")
    def test_one(lab):
        pass
    """
    result, (alone,) = run(pytester, source)
    result, (spread,) = run(pytester, source, "-n", "1", "--dist=loadgroup")
    result.assert_outcomes(passed=1)
    assert spread["nodeid"] == alone["nodeid"] == "test_a_group_does_not_change_the_name.py::test_one"


def test_workers_take_first_what_needs_several_processors(pytester: pytest.Pytester) -> None:
    """Later it would have to wait until everything else has ended, and everybody else meanwhile for it."""
    source = """
    from pathlib import Path
    import pytest

    def note(name):
        with Path("order").open("a") as file:
            file.write(name)

    def test_a(): note("a")

    @pytest.mark.lab(vcpus=0.5)
    def test_b(): note("b")

    @pytest.mark.lab(vcpus=2)
    def test_c(): note("c")
    """
    result, _ = run(pytester, source, "-n", "1")
    result.assert_outcomes(passed=3)
    assert Path("order").read_text() == "cab"


def test_what_needs_several_processors_has_a_head_start(pytester: pytest.Pytester) -> None:
    """Other workers' first scenarios leave the host empty for it, also where they begin first."""
    source = """
    import time
    from pathlib import Path
    import pytest

    @pytest.mark.lab(vcpus=2)
    def test_wide(lab):
        Path("wide").touch()

    @pytest.mark.lab(vcpus=0.1)
    @pytest.mark.parametrize("number", range(2))
    def test_small(lab, number):
        assert Path("wide").exists()
    """
    result, _ = run(pytester, source, "-n", "3")
    result.assert_outcomes(passed=3)


def test_machines_beyond_the_lease_are_the_scenarios_mistake(pytester: pytest.Pytester) -> None:
    source = """
    import pytest

    @pytest.mark.lab(memory=100)
    def test_boots(lab, kernel):
        lab.vm("one", arch="x86_64", kernel=kernel, memory=128).start()
    """
    result, (record,) = run(pytester, source)
    result.assert_outcomes(failed=1)
    assert record["owner"] == "misuse"
    result.stdout.fnmatch_lines(["*128 MiB (one 128), its lease 100; *@pytest.mark.lab(memory=128)*"])
