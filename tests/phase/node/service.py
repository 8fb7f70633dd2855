"""A node that runs as people run it, for tests: a real process, real QUIC on loopback."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

PHASE = [sys.executable, "-m", "phase"]


class Node(NamedTuple):
    """A node that runs."""

    process: subprocess.Popen[str]
    address: str
    directory: Path

    @property
    def key(self) -> str:
        return self.address.partition("@")[0]

    def end(self) -> None:
        """As `kill -9` does; may be called twice."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def job(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run `phase job` as the client that the node allows."""
        environment = os.environ | {"PHASE_STATE": str(self.directory / "client")}
        command = [*PHASE, "job", *words]
        return subprocess.run(command, input=stdin, capture_output=True, env=environment, timeout=100)


def begin(directory: Path, *options: str, listen: Sequence[str] = ("127.0.0.1:0",)) -> Node:
    """Start a node, and wait until it says where it is."""
    command = [*PHASE, "node", "--state", str(directory / "node"), "--json"]
    # Nothing of a test reaches the network of the host.
    command += ["--no-mdns"] if "--no-mdns" not in options else []
    for each in listen:
        command += ["--listen", each]
    with (directory / "log").open("a") as log:
        process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    said = process.stdout.readline()
    assert said, (directory / "log").read_text()
    return Node(process, json.loads(said)["address"], directory)
