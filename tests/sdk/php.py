"""PHP, for the SDK's own programs."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence

import pytest

from tests.sdk.node import PROJECT

SDK = PROJECT / "sdk/php"


def run(script: str, more: Mapping[str, str] = {}, *, words: Sequence[str] = ()) -> str:
    """Run a program of the SDK's tests; what it printed. Without PHP, the test is skipped."""
    php = shutil.which("php")
    if php is None:
        pytest.skip("no php here: python3 -m lab doctor says how to get it")
    # As much memory as PHP's own default for a web server.
    command = [php, "-d", "memory_limit=128M", "-d", "error_reporting=-1", "-d", "display_errors=stderr"]
    done = subprocess.run(
        [*command, "-d", "zend.assertions=1", str(SDK / "tests" / script), *words],
        env={**os.environ, **more},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout
