"""What `make` and tox run of the scenarios, for one architecture and for both."""

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
#: They boot images of both architectures, or of the one alone.
OF_BOTH = ("test_boots_from_the_other_architecture", "test_alone_they_boot_nothing")
OF_X86_64 = "test_ipxe_boots"


def collected(*options: str) -> str:
    words = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    words += ["--override-ini=testpaths=scenarios", *options]
    done = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(("arch", "other"), [("x86_64", "arm64"), ("arm64", "x86_64")])
def test_a_run_of_one_architecture_leaves_out_what_boots_the_other(arch: str, other: str) -> None:
    found = collected(f"--lab-arch={arch}")
    assert f"[{arch}]" in found
    assert f"[{other}]" not in found
    assert not any(name in found for name in OF_BOTH)
    assert (OF_X86_64 in found) is (arch == "x86_64")


def test_a_run_of_both_leaves_nothing_out() -> None:
    found = collected()
    assert "deselected" not in found
    assert all(name in found for name in (*OF_BOTH, OF_X86_64))
    assert "[x86_64]" in found
    assert "[arm64]" in found


@pytest.mark.parametrize(
    ("arguments", "setup", "run"),
    [
        (("lab",), "--for loop", "-e loop --"),
        (("lab", "ARCH=arm64"), "--for loop --arch arm64", "-e loop -- --lab-arch=arm64"),
        (("lab-all",), "--for scenarios", "-e lab"),
        (("test",), "bootstrap.sh python3", "-e lab -- scenarios/test_loop.py"),
    ],
)
def test_make_sets_up_what_it_runs(arguments: tuple[str, ...], setup: str, run: str) -> None:
    done = subprocess.run(
        ["make", "-n", *arguments], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    lines = [line.rstrip(" \\") for line in done.stdout.splitlines()]
    assert lines[0].rstrip().endswith(setup)
    assert any(run in line and "tox run" in line for line in lines), done.stdout
    assert lines[-1] == "exit $status"
