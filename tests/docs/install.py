"""Follows docs/use/install.md, each way in a clean checkout and a home directory of its own.

Not part of `make test`: it asks the package index for everything. `tox run -e install` runs it.
"""

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import pages

PAGE = "docs/use/install.md"
pytestmark = pytest.mark.timeout(900)


class Clean:
    """A checkout without a trace of an earlier build, and a home directory with nothing in it."""

    def __init__(self, directory: Path) -> None:
        self.checkout, self.home = directory / "checkout", directory / "home"
        self.home.mkdir()
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=pages.PROJECT, capture_output=True, text=True, check=True
        )
        for name in filter(None, listed.stdout.split("\0")):
            (self.checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(pages.PROJECT / name, self.checkout / name)

    def follow(self, test: str) -> str:
        """Run the blocks of the page that name a test; what they print."""
        kept = {
            name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")
        }
        return pages.run(
            pages.chosen(PAGE, test), self.checkout, kept | {"HOME": str(self.home)}, seconds=900
        )


@pytest.fixture
def clean(tmp_path: Path) -> Clean:
    return Clean(tmp_path)


def test_pip(clean: Clean) -> None:
    assert clean.follow("test_pip").splitlines()[-1][0].isdigit()


def test_for_all_accounts(clean: Clean, tmp_path: Path) -> None:
    """With another directory in the place of this host's /opt and /usr/local/bin."""
    (tmp_path / "bin").mkdir()
    blocks = [
        dataclasses.replace(
            block,
            lines=tuple(
                line.replace("/opt", f"{tmp_path}/opt").replace("/usr/local/bin", f"{tmp_path}/bin")
                for line in block.lines
            ),
        )
        for block in pages.chosen(PAGE, "test_for_all_accounts")
    ]
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables["PATH"] = f"{tmp_path}/bin:{variables['PATH']}"
    said = pages.run(blocks, clean.checkout, variables, seconds=900)
    assert said.splitlines()[-1][0].isdigit()
    assert (tmp_path / "bin/phase").resolve() == tmp_path / "opt/phase/bin/phase"


def test_pipx(clean: Clean) -> None:
    assert clean.follow("test_pipx").splitlines()[-1][0].isdigit()


def test_uv(clean: Clean) -> None:
    assert clean.follow("test_uv").splitlines()[-1][0].isdigit()


def test_offline(clean: Clean) -> None:
    assert clean.follow("test_offline").splitlines()[-1][0].isdigit()


def test_extras(clean: Clean) -> None:
    clean.follow("test_pip")
    clean.follow("test_extras")
    program = clean.home / "phase-env/bin/python"
    subprocess.run([program, "-c", "import PyKCS11"], check=True)


def test_the_first_job(clean: Clean) -> None:
    clean.follow("test_pip")
    clean.follow("test_the_first_job")
    # The package is whole: commands run outside of the checkout.
    for words in (["serve", "--help"], ["release", "--help"], ["--help"]):
        subprocess.run([clean.home / "phase-env/bin/phase", *words], cwd=clean.home, check=True)
