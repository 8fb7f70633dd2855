"""Keeps build results by the hash of all their inputs."""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from boot.errors import BuildError

_log = logging.getLogger("boot")


def root() -> Path:
    """The directory for images: `PHASE_CACHE`, otherwise `phase` in the user's cache directory.

    Raises:
        BuildError: this user's directory is not known.
    """
    chosen = os.environ.get("PHASE_CACHE")
    if chosen:
        return Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "phase"
    except RuntimeError as error:
        raise BuildError(
            f"no directory for images: no HOME, and user {os.geteuid()} has no entry in passwd. "
            "Set PHASE_CACHE to a directory."
        ) from error


def key(inputs: Mapping[str, object]) -> str:
    """A short name for a set of inputs (JSON values): the first 16 hex digits of its SHA-256."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def files_key(paths: Mapping[str, Path]) -> str:
    """The hash of named files' contents."""
    total = hashlib.sha256()
    for name in sorted(paths):
        total.update(f"{name}\0{hashlib.sha256(paths[name].read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def sources(directory: Path) -> dict[str, Path]:
    """The files of a source directory that can affect an image: no caches, no hidden files."""
    return {
        path.relative_to(directory).as_posix(): path
        for path in sorted(directory.rglob("*"))
        if path.is_file()
        and not any(part.startswith((".", "__pycache__")) for part in path.relative_to(directory).parts)
    }


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file for the length of a `with`; it ends with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def get(kind: str, inputs: Mapping[str, object], build: Callable[[Path], None]) -> Path:
    """Return the directory built from these inputs, building it first if it is not there.

    Args:
        kind: for people, for example `seed-arm64`.
        inputs: everything that affects its content, as JSON values.
        build: fills an empty directory. If it raises, the directory is removed, so that the cache only holds
            complete results.

    Returns:
        The finished directory. If two processes ask at once, one of them builds it.
    """
    name = f"{kind}-{key(inputs)}"
    final = root() / "images" / name
    if final.exists():
        return final
    with locked(root() / "locks" / name):
        if final.exists():
            return final
        final.parent.mkdir(parents=True, exist_ok=True)
        # No other process builds it under this lock, so an existing directory was left by a killed build.
        for stale in final.parent.glob(f".{name}.*"):
            shutil.rmtree(stale, ignore_errors=True)
        building = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=final.parent))
        _log.info("building %s", kind)
        begun = time.monotonic()
        try:
            build(building)
            (building / "inputs.json").write_text(json.dumps(inputs, indent=1, sort_keys=True) + "\n")
            building.chmod(0o755)
            building.rename(final)
            _log.info("built %s in %.0f s", kind, time.monotonic() - begun)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
    return final
