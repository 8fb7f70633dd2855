"""Peers behind NATs and firewalls: real network stacks in namespaces, between them the lab's routers."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.net.firewall import Rule
from lab.net.hostport import HostPort
from lab.net.nat import SYMMETRIC, Nat
from lab.net.packet import UDP
from lab.net.router import Router
from lab.net.segment import Segment

_ROOT = Path(__file__).parents[3]
PORT = 4433
#: Keeps the port of the first machine behind it, as home routers do, and lets nobody in who was not called.
KEEPS_PORTS = Nat(filtering="port", ports=range(PORT, PORT + 100))
NO_UDP = (Rule("drop", protocol=UDP),)


@dataclass
class World:
    """A relay in the middle, two nodes, and the boxes that they are behind."""

    relay: HostPort
    nodes: list[HostPort]
    boxes: list[Router]
    middle: Segment

    @property
    def url(self) -> str:
        return f"http://{self.relay.address.ip}:8080"

    @contextmanager
    def program(self, on: HostPort, *words: str) -> Iterator["subprocess.Popen[str]"]:
        command = on.command(sys.executable, "-m", "tests.phase.peer.program", *words)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_ROOT) as process:
            try:
                yield process
            finally:
                process.kill()

    def call(self, seconds: float) -> list[dict[str, Any]]:
        """What the second node says that calls the first, over the relay at first."""
        with ExitStack() as stack:
            relay = stack.enter_context(self.program(self.relay, "relay", "8080"))
            assert said(relay)["ready"]
            server = stack.enter_context(self.program(self.nodes[0], "serve", str(PORT), self.url))
            words = ("call", str(PORT), self.url, said(server)["key"], str(seconds))
            client = stack.enter_context(self.program(self.nodes[1], *words))
            assert client.stdout is not None
            return [json.loads(line) for line in client.stdout]


def said(process: "subprocess.Popen[str]") -> dict[str, Any]:
    assert process.stdout is not None
    found: dict[str, Any] = json.loads(process.stdout.readline())
    return found


@contextmanager
def world(directory: Path, *nats: Nat | None, rules: tuple[Rule, ...] = ()) -> Iterator[World]:
    """Two nodes and a relay.

    Args:
        directory: for the switches' sockets.
        nats: of the two nodes' homes; None for a node that is where the relay is.
        rules: of the firewalls of both homes.
    """
    with ExitStack() as stack:
        middle = _segment(stack, "middle", directory, 0)
        nodes, boxes = [], []
        for number, nat in enumerate(nats, 1):
            home = middle
            if nat is not None:
                home = _segment(stack, f"home{number}", directory, number)
                box = Router(f"box{number}", nat=nat, rules=rules)
                home.dhcp.options[3] = home.join(box.name, box, _mac(number, 1)).packed
                middle.join(box.name, box, _mac(number, 2))
                boxes.append(box)
            nodes.append(stack.enter_context(_port(home, f"node{number}", _mac(number, 3))))
        relay = stack.enter_context(_port(middle, "relay", _mac(0, 1)))
        yield World(relay, nodes, boxes, middle)


def _segment(stack: ExitStack, name: str, directory: Path, number: int) -> Segment:
    (directory / name).mkdir()
    made = Segment(name, directory / name, number)
    stack.callback(made.switch.close)
    return made


@contextmanager
def _port(segment: Segment, name: str, mac: bytes) -> Iterator[HostPort]:
    port = segment.host_port(name, mac)
    try:
        yield port
    finally:
        port.close()


def _mac(number: int, card: int) -> bytes:
    return bytes([0x52, 0x54, 0, 0, number, card])


def _kinds(lines: list[dict[str, Any]]) -> list[str]:
    assert not any("error" in line for line in lines), lines
    return [line["kind"] for line in lines if "kind" in line]


def test_both_behind_nats_begin_over_the_relay_and_go_direct(tmp_path: Path) -> None:
    with world(tmp_path, KEEPS_PORTS, KEEPS_PORTS) as there:
        lines = there.call(6)
        # Only the relay is named, so it began there; the first answer may be late enough to be direct.
        assert _kinds(lines) in (["relay", "direct"], ["direct"])
        assert lines[-1]["taken"][-1] == "direct"
        # It is the other box that is talked to, and each knows what it looks like from outside.
        assert lines[-2]["remote"] == f"{there.boxes[0].address('middle')}:{PORT}"
        assert f"{there.boxes[1].address('middle')}:{PORT}" in lines[-1]["hosts"]


def test_symmetric_nats_stay_on_the_relay(tmp_path: Path) -> None:
    with world(tmp_path, SYMMETRIC, SYMMETRIC) as there:
        assert _kinds(there.call(5)) == ["relay"]


def test_relay_that_dies_and_comes_back_loses_no_connection(tmp_path: Path) -> None:
    with ExitStack() as stack:
        there = stack.enter_context(world(tmp_path, SYMMETRIC, SYMMETRIC))
        with there.program(there.relay, "relay", "8080") as relay:
            assert said(relay)["ready"]
            server = stack.enter_context(there.program(there.nodes[0], "serve", str(PORT), there.url))
            words = ("call", str(PORT), there.url, said(server)["key"], "15")
            client = stack.enter_context(there.program(there.nodes[1], *words))
            assert said(client)["kind"] == "relay"
        time.sleep(2)
        relay = stack.enter_context(there.program(there.relay, "relay", "8080"))
        assert said(relay)["ready"]
        last = said(client)
        assert "error" not in last, last
        # The last answers came over the new relay.
        assert last["longest"] > 1
        assert last["after"] > 10, last


def test_no_udp_stays_on_the_relay(tmp_path: Path) -> None:
    with world(tmp_path, KEEPS_PORTS, KEEPS_PORTS, rules=NO_UDP) as there:
        assert _kinds(there.call(5)) == ["relay"]
        homes = {box.address("middle") for box in there.boxes}
        assert not there.middle.seen(lambda packet: packet.protocol == UDP and packet.source in homes)


def test_one_behind_a_symmetric_nat_goes_direct(tmp_path: Path) -> None:
    with world(tmp_path, SYMMETRIC, None) as there:
        assert _kinds(there.call(5))[-1] == "direct"
