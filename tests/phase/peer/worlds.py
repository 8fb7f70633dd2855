"""Peers behind NATs and firewalls: real network stacks in namespaces, between them the lab's routers."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.net.firewall import Rule
from lab.net.hostport import HostPort
from lab.net.nat import Nat
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
