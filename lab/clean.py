"""Deletes what the project made, and nothing else."""

import os
import shutil
import tomllib
from pathlib import Path

from lab.errors import InfrastructureError

#: Below the checkout, everything that a build or a run leaves; also what .gitignore names.
_MADE = (
    ".tox",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".hypothesis",
    ".import_linter_cache",
    ".cache",
    "node_modules",
    "reports/out",
    "docs/_build",
    "build",
    "dist",
    "phase.egg-info",
)
#: What the lab leaves in any project.
_OURS = ("reports/out",)
#: Below the cache directory; it may be anybody's, so it is not deleted itself.
_CACHED = ("apt", "images", "locks", "stages")


def cache_directory() -> Path:
    """Where images are cached: `$PHASE_CACHE`, else `phase` in the user's cache directory.

    Raises:
        InfrastructureError: nothing says where this user has a directory.
    """
    if chosen := os.environ.get("PHASE_CACHE"):
        return Path(chosen)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "phase"
    try:
        return Path.home() / ".cache/phase"
    except RuntimeError as error:
        raise InfrastructureError(
            f"no directory for images: no HOME, and user {os.geteuid()} has no entry in passwd. "
            "Set PHASE_CACHE to a directory, and PHASE_STATE to one for the phase command."
        ) from error


def clean(root: Path) -> list[Path]:
    """Deletes reports and images, and in Phase's own checkout caches and tox's environments.

    Args:
        root: the project. In another one than Phase's, everything but reports is somebody else's.

    Returns:
        What was there and is gone.
    """
    ours = _is_phase(root)
    made = [
        *(root / name for name in (_MADE if ours else _OURS)),
        *(cache_directory() / name for name in _CACHED),
    ]
    gone = [path for path in made if _remove(path)]
    for top in ("phase", "lab", "boot", "scenarios", "bench", "tests") if ours else ():
        for path in (root / top).rglob("__pycache__"):
            _remove(path)
    return gone


def _is_phase(root: Path) -> bool:
    try:
        told = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(told.get("project", {}).get("name") == "phase")


def clean_results(out: Path, arch: str) -> None:
    """Deletes the last results of one architecture, so that a report never mixes two runs.

    Args:
        out: the directory of all results.
        arch: the architecture; names its directory below `out`.
    """
    if arch in ("", ".", "..") or "/" in arch:
        raise ValueError(f"{arch!r} is not an architecture's name")
    _remove(out / arch)


def clean_history(directory: Path) -> None:
    """Deletes what earlier runs left for the matrix; nothing else does."""
    _remove(directory)


def _remove(path: Path) -> bool:
    if path.is_symlink():
        path.unlink()
        return True
    if not path.exists():
        return False
    shutil.rmtree(path)
    return True
