"""The script that decides whether a system's console has a shell."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "boot" / "files" / "console"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("quiet phase.console=shell console=ttyS0", "open"),
        ("phase.console=shell", "open"),
        ("quiet console=ttyS0", "closed"),
        ("quiet phase.job=xphase.console=shell console=ttyS0", "closed"),
        ("quiet phase.console=shells", "closed"),
    ],
)
def test_only_the_whole_word_opens_a_shell(line: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "cmdline").write_text(line + "\n")
    script = SCRIPT.read_text()
    for real, tried in (
        ("/proc/cmdline", str(tmp_path / "cmdline")),
        ("exec sleep 2147483647", "exec echo closed"),
        ("exec cttyhack /bin/sh", "exec echo open"),
    ):
        assert real in script
        script = script.replace(real, tried)
    told = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == said
