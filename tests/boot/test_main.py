"""What `python3 -m boot` says before it builds anything."""

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def test_a_python_without_the_modules_is_told_what_to_do() -> None:
    """As the distribution's own Python, which has no library of the project."""
    done = subprocess.run(
        [sys.executable, "-S", "-m", "boot", "build"],
        cwd=PROJECT,
        env={},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("phase: ")
    assert " lacks the module " in line
    assert "pip install '.[lab]'" in line
