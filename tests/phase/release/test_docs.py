"""Every command of the pages on releases works as it is printed, in its order."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures import artifacts

DOCS = Path(__file__).parents[3] / "docs/use"


def commands(page: str) -> list[str]:
    """The lines after `$ ` in the page's console blocks."""
    blocks = re.findall(r"^```console\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def run_page(page: str, directory: Path) -> str:
    """Run a page in one shell; what it prints."""
    bin_directory = directory / "bin"
    bin_directory.mkdir()
    # As installed: names that a page may rely on, whatever this environment is called.
    for name, words in (("phase", "-m phase "), ("python3", "")):
        (bin_directory / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words}"$@"\n')
        (bin_directory / name).chmod(0o755)
    (directory / "vmlinuz").write_bytes(artifacts.kernel(size=70_000))
    (directory / "initrd.img").write_bytes(artifacts.initramfs())
    environment = {
        **os.environ,
        "PATH": f"{bin_directory}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(DOCS.parents[1]),
        "PHASE_RELEASE_COST": "interactive",
        "PHASE_RELEASE_PASSPHRASE": "a passphrase for the docs",
    }
    # Who is asked whether it is so says yes.
    script = "\n".join(["set -e", "exec < <(yes)", *commands(page)])
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(300)
def test_publishing(tmp_path: Path) -> None:
    assert len(commands("releases.md")) == 22
    said = run_page("releases.md", tmp_path)
    assert "testing/x86_64 1.0 (version 1) verified" in said
    assert "Signature Verified Successfully" in said
    assert said.splitlines()[-1] == "good"


@pytest.mark.timeout(300)
def test_the_ceremony(tmp_path: Path) -> None:
    assert len(commands("ceremony.md")) == 32
    said = run_page("ceremony.md", tmp_path)
    assert said.count("published in repo") == 3
    assert "stable/x86_64 1.0 (version 1) verified" in said
    assert (tmp_path / "repo/metadata/2.root.json").exists()
    holders = [tmp_path / f"holder{n}" for n in (1, 2, 3, 4)]
    assert all(len(list(each.glob("root-*.json"))) == 1 for each in holders)
