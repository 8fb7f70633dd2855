"""Node and what npm installs for the SDK of TypeScript."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from lab.report.allure import of_the_wheel

PROJECT = Path(__file__).resolve().parents[2]
SDK = PROJECT / "sdk/typescript"
_LOCK = SDK / "package-lock.json"
_WHOLE = SDK / "node_modules/.whole"


def node() -> str:
    """Node: that of the wheel, which the environment `unit` has, or the machine's."""
    found = of_the_wheel("bin/node") or shutil.which("node")
    if found is None:
        pytest.skip("no Node here; the environment `unit` of tox has one")
    return found


def run(words: Sequence[str | Path], more: Mapping[str, str] = {}, *, seconds: float = 100) -> str:
    """Run Node in the SDK's directory; what it printed."""
    done = subprocess.run(
        [node(), *words],
        cwd=SDK,
        env={**os.environ, **more},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def install() -> None:
    """Have npm install what the lock names, once."""
    npm = of_the_wheel("lib/node_modules/npm/bin/npm-cli.js")
    words = [node(), npm] if npm else [shutil.which("npm") or pytest.skip("no npm here")]
    with _LOCK.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _WHOLE.is_file() and _WHOLE.read_bytes() == _LOCK.read_bytes():
            return
        done = subprocess.run([*words, "ci"], cwd=SDK, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        _WHOLE.write_bytes(_LOCK.read_bytes())
