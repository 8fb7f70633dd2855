"""The project's wheel, installed where nothing of the checkout is seen."""

import os
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def install(room: Path, *others: str) -> Path:
    """An environment with the wheel in it, and with the libraries of this one.

    Args:
        room: an empty directory.
        others: what pip installs beside it, from the index.

    Returns:
        Its Python.
    """
    source = room / "source"
    source.mkdir()
    for name in ("phase", "lab"):
        shutil.copytree(PROJECT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source)
    pip: list[str | Path] = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", room, source], check=True)
    venv.create(room / "venv", with_pip=False)
    packages = room / "venv" / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    (built,) = room.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(packages)
    if others:
        subprocess.run([*pip, "install", "--no-deps", "--target", packages, *others], check=True)
    # Only the path: what an editable install adds to it by a .pth file of its own is not read there.
    libraries = {sysconfig.get_path("purelib"), *site.getsitepackages()}
    (packages / "libraries.pth").write_text("\n".join(sorted(libraries)) + "\n")
    return room / "venv" / "bin" / "python"


def run(
    python: Path, directory: Path, *words: str, more: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run that Python in a project of somebody else.

    Args:
        python: from `install`.
        directory: the project.
        words: for it.
        more: variables.
    """
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON", "COV"))
    }
    kept |= {"LAB_LEASES": str(directory / "leases"), "PHASE_CACHE": str(directory / "cache")}
    return subprocess.run(
        [python, *words], cwd=directory, env=kept | dict(more or {}), capture_output=True, text=True
    )
