"""Providers that are programs of this host."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from lab.net.hostport import HostPort


@contextlib.contextmanager
def serving(repository: Path, *more: str, port: HostPort | None = None) -> Iterator[str]:
    """A running `phase serve`; its URL.

    Args:
        repository: what it serves.
        more: options.
        port: the host port it runs on; loopback when left out.
    """
    bind = str(port.address.ip) if port else "127.0.0.1"
    # With the test run, however that ends, it ends too.
    command = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "phase", "serve"]
    command += ["--artifacts", str(repository), "--bind", bind, *more]
    process = subprocess.Popen(
        port.command(*command) if port else command, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("serving "), line
        yield line.split()[-1]
    finally:
        process.terminate()
        process.communicate(timeout=60)


@contextlib.contextmanager
def netbooting(port: HostPort, url: str, log: Path, *more: str) -> Iterator[None]:
    """A running `phase netboot` on a host port.

    Args:
        port: where it answers.
        url: of the provider.
        log: what it says of each machine.
        more: options.
    """
    command = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "phase", "netboot"]
    with log.open("w") as errors:
        process = subprocess.Popen(
            port.command(*command, "--provider", url, *more),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("seeds of "), log.read_text()
        yield
    finally:
        process.terminate()
        process.communicate(timeout=60)
