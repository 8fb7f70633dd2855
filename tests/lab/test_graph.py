from pathlib import Path
from unittest.mock import Mock

import pytest

from lab.graph import Format, Node, graph
from lab.net.hostport import HostPort
from lab.net.nat import FULL_CONE
from lab.topology import Lab

NODES = [
    Node("server", "arm64", ("lan",)),
    Node("router", "x86_64", ("lan", "wan")),
    Node("lonely", "x86_64"),
]


def test_mermaid() -> None:
    assert graph(NODES, "mermaid").splitlines() == [
        "graph LR",
        '  m0["server<br>arm64"]',
        '  m1["router<br>x86_64"]',
        '  m2["lonely<br>x86_64"]',
        '  s0(["lan"])',
        '  s1(["wan"])',
        "  m0 --- s0",
        "  m1 --- s0",
        "  m1 --- s1",
    ]


def test_dot_keeps_a_machine_and_a_segment_of_one_name_apart() -> None:
    text = graph([Node("lan", "arm64", ("lan",))], "dot")
    assert '"machine lan" -- "segment lan"' in text
    assert text.count("shape=box") == text.count("shape=ellipse") == 1


def test_what_joins_segments_is_in_the_picture(tmp_path: Path) -> None:
    """Two machines on both sides of a NAT, and a card of the host's: one connected graph."""
    kernel = tmp_path / "kernel"
    kernel.touch()
    with Lab(factor=1) as lab:
        home, wan, dmz = (lab.segment(name) for name in ("home", "wan", "dmz"))
        lab.vm("box", arch="arm64", kernel=kernel, segments=(home,))
        lab.vm("far", arch="arm64", kernel=kernel, segments=(wan,))
        # A name is unique among its kind only.
        lab.router("box", dmz, wan)
        lab.router("nat", home, wan, nat=FULL_CONE)
        # A real one needs a network namespace, which not every host allows.
        dmz.switch.add_service(lambda frame: [], "desk")
        lab.host_ports["desk"] = Mock(spec=HostPort)
        nodes = lab.nodes()
    assert [(node.machine, node.kind, node.segments) for node in nodes] == [
        ("box", "machine", ("home",)),
        ("far", "machine", ("wan",)),
        ("box", "router", ("dmz", "wan")),
        ("nat", "NAT", ("home", "wan")),
        ("desk", "host port", ("dmz",)),
    ]
    text = graph(nodes, "mermaid")
    assert '  m3["nat<br>NAT"]' in text
    assert '  m4["desk<br>host port"]' in text
    wires = [set(line.split(" --- ")) for line in text.replace("  ", "").splitlines() if " --- " in line]
    reached = wires.pop(0)
    while near := [wire for wire in wires if wire & reached]:
        reached |= set().union(*near)
        wires = [wire for wire in wires if wire not in near]
    assert len(reached) == 5 + 3


@pytest.mark.parametrize("style", ["dot", "mermaid"])
def test_nothing_is_a_graph_too(style: Format) -> None:
    assert "--" not in graph([], style)
