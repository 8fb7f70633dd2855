"""Jobs whose way to the node changes or fails while they run: real programs in network namespaces."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.net.faults import Faults
from lab.net.hostport import HostPort
from lab.net.nat import SYMMETRIC
from lab.net.packet import UDP
from phase.identity import Identity
from phase.node import serving
from phase.peer.iroh import Limits
from tests.phase.node.conftest import CAT, wasm
from tests.phase.peer.worlds import NO_UDP, said, world

_PORT = 8470
_PHASE = (sys.executable, "-m", "phase")


class Job:
    """A job at a node, each in a namespace of its own; half of its input is there.

    Args:
        directory: for the states of both.
        node: where the node runs.
        client: where the client runs.
        relay: URL of a relay, if that is all the client is told.
    """

    def __init__(self, directory: Path, node: HostPort, client: HostPort, relay: str = "") -> None:
        self._log = directory / "log"
        identity = Identity.load_or_create(directory / "client/identity.json")
        words = ["node", "--state", str(directory / "node"), "--json", "--no-mdns", "--slots", "1"]
        words += ["--listen", f"0.0.0.0:{_PORT}", "--allow", identity.public_key]
        words += ["--relay", relay] if relay else []
        with self._log.open("w") as log:
            command = node.command(*_PHASE, *words)
            self._node = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._node.stdout is not None
        key = json.loads(self._node.stdout.readline())["node"]
        (directory / "cat.wasm").write_bytes(wasm(CAT))
        where = f"{key}@{relay or f'{node.address.ip}:{_PORT}'}"
        command = client.command(*_PHASE, "job", "submit", "--node", where, str(directory / "cat.wasm"))
        environment = os.environ | {"PHASE_STATE": str(directory / "client")}
        self._client = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )
        assert self._client.stdin is not None
        self._client.stdin.write(b"Hello, ")
        self._client.stdin.flush()
        self.logs("is taken")

    def logs(self, text: str) -> None:
        """Wait until the node has written a text."""
        _until(lambda: text in self._log.read_text())

    def give(self) -> None:
        """Give the rest of the input; then the job ends."""
        assert self._client.stdin is not None
        self._client.stdin.write(b"World")
        self._client.stdin.close()
        self._client.stdin = None

    def end(self) -> tuple[int, bytes, bytes]:
        """Exit code and both outputs of the client."""
        out, err = self._client.communicate(timeout=90)
        return self._client.returncode, out, err

    def close(self) -> None:
        """End both."""
        for each in (self._client, self._node):
            each.kill()
            each.communicate()


@contextmanager
def _job(directory: Path, node: HostPort, client: HostPort, relay: str = "") -> Iterator[Job]:
    job = Job(directory, node, client, relay)
    try:
        yield job
    finally:
        job.close()


def _until(so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_job_goes_on_when_its_way_moves_from_a_relay_to_a_direct_one(tmp_path: Path) -> None:
    with (
        world(tmp_path, SYMMETRIC, None, rules=NO_UDP) as there,
        there.program(there.relay, "relay", "8080") as relay,
    ):
        assert said(relay)["ready"]
        node, client = there.nodes
        with _job(tmp_path, node, client, there.url) as job:
            there.boxes[0].firewall.rules = ()
            job.logs("is direct by")
            job.give()
            assert job.end() == (0, b"Hello, World", b"")


def test_a_job_goes_on_when_its_direct_way_dies_and_a_relay_is_left(tmp_path: Path) -> None:
    with (
        world(tmp_path, SYMMETRIC, None) as there,
        there.program(there.relay, "relay", "8080") as relay,
    ):
        assert said(relay)["ready"]
        node, client = there.nodes
        with _job(tmp_path, node, client, there.url) as job:
            job.logs("is direct by")
            # What the client gives arrives, and the result does not.
            there.middle.link("node2").inward.drop = _of_udp
            job.give()
            assert job.end() == (0, b"Hello, World", b"")


def _of_udp(frame: bytes) -> bool:
    return frame[12:14] == b"\x08\x00" and frame[23] == UDP


def test_a_result_outlives_a_cable_that_is_dead_for_a_while(tmp_path: Path) -> None:
    with world(tmp_path, None, None) as there, _job(tmp_path, there.nodes[0], there.nodes[1]) as job:
        cable = there.middle.link("node1")
        cable.from_machine = Faults(partition=True)
        job.give()
        time.sleep(10)
        cable.heal()
        assert job.end() == (0, b"Hello, World", b"")


def test_a_result_is_kept_on_its_way_for_longer_than_a_peer_may_be_silent() -> None:
    assert Limits().silent_seconds + 5 < serving.CLOSE_SECONDS
