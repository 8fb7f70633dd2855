"""Runs `phase serve` as a process, and asks it."""

import contextlib
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

COMMAND = [sys.executable, "-m", "phase", "serve", "--bind", "127.0.0.1", "--port", "0", "--no-mdns"]


@contextlib.contextmanager
def serving(repository: Path, *more: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Serve a repository; gives the URL and the process."""
    process = subprocess.Popen(
        [*COMMAND, "--artifacts", str(repository), *more], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split(" on ")[1].strip(), process
    finally:
        process.terminate()
        with process.stdout:
            process.wait(30)


def get(url: str, headers: dict[str, str] | None = None, context: ssl.SSLContext | None = None) -> bytes:
    request = urllib.request.Request(url, headers=headers or {})
    with urllib.request.urlopen(request, timeout=20, context=context) as answer:
        found: bytes = answer.read()
        return found
