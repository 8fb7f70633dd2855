"""The script that keeps the watchdog of a booted system from restarting it."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "boot" / "files" / "watchdog"
#: What `sleep` does: it counts, and something happens at one of the counts. None of them takes any time.
_SLEEP = """#!/bin/sh
echo x >>{at}/slept
times=$(wc -l <{at}/slept)
[ $times != {job} ] || : >{at}/run/job-ended
[ $times != {well} ] || : >{at}/run/well
[ $times -lt {most} ] || kill $PPID
"""
MOST = 400


@pytest.fixture
def petted(tmp_path: Path) -> "Petted":
    return Petted(tmp_path)


class Petted:
    """A machine with a watchdog, which is a file."""

    def __init__(self, directory: Path) -> None:
        self.at = directory
        (directory / "run").mkdir()
        (directory / "bin").mkdir()
        (directory / "watchdog").touch()
        (directory / "kmsg").touch()

    def __call__(self, words: str, *, job: int = 0, well: int = 0) -> int:
        """How often the watchdog was petted, until the script gave up or slept `MOST` times.

        Args:
            words: of the kernel command line.
            job: after how many rounds the job ends; 0: never.
            well: after how many the release is well; 0: never.
        """
        sleep = self.at / "bin/sleep"
        sleep.write_text(_SLEEP.format(at=self.at, job=job, well=well, most=MOST))
        sleep.chmod(0o755)
        (self.at / "cmdline").write_text(f"quiet {words}\n")
        script = SCRIPT.read_text()
        for place, instead in (
            ("/proc/cmdline", "cmdline"),
            ("/dev/watchdog", "watchdog"),
            ("/dev/kmsg", "kmsg"),
            ("/run/phase", "run"),
        ):
            assert place in script
            script = script.replace(place, str(self.at / instead))
        environment = os.environ | {"PATH": f"{self.at / 'bin'}:{os.environ['PATH']}"}
        subprocess.run(["sh", "-c", script], env=environment, timeout=60, check=False)
        written = (self.at / "watchdog").read_text()
        assert "V" not in written
        return len(written.splitlines())


def test_it_is_petted_while_the_job_runs_and_once_the_release_is_well(petted: Petted) -> None:
    assert petted("phase.watched=60", job=150, well=200) == MOST
    assert not (petted.at / "kmsg").read_text()


def test_a_release_that_is_not_well_in_time_is_given_up(petted: Petted) -> None:
    """The time begins when the job has ended."""
    assert petted("phase.watched=60", job=100) == 100 + 700 // 5 - 1
    assert "this release is not well; restarting in 60 s" in (petted.at / "kmsg").read_text()


@pytest.mark.parametrize("words", ["", "phase.watchdog=60", "xphase.watched=60"])
def test_a_machine_that_does_not_count_is_not_watched(petted: Petted, words: str) -> None:
    assert petted(words) == 0
