"""What is plugged into which segment, as text that drawing programs read."""

from collections.abc import Sequence
from typing import Literal

import msgspec

Format = Literal["dot", "mermaid"]


class Node(msgspec.Struct, frozen=True):
    """A machine, or another thing with a cable.

    Attributes:
        machine: its name; unique among those of its kind.
        arch: of a machine.
        segments: what its cards are plugged into, in order.
        kind: what it is.
    """

    machine: str
    arch: str = ""
    segments: tuple[str, ...] = ()
    kind: Literal["machine", "router", "NAT", "host port"] = "machine"


def graph(nodes: Sequence[Node], style: Format) -> str:
    """A topology's graph. Names are the lab's own: letters, digits and `-`.

    Args:
        nodes: its machines, and whatever else is plugged in.
        style: `dot` for Graphviz, `mermaid` for what GitHub and GitLab draw in Markdown.
    """
    segments = list(dict.fromkeys(name for node in nodes for name in node.segments))
    if style == "dot":
        lines = ["graph topology {", "  node [fontname=sans]"]
        lines += [
            f'  "{n.kind} {n.machine}" [shape=box label="{n.machine}\\n{n.arch or n.kind}"]' for n in nodes
        ]
        lines += [f'  "segment {name}" [shape=ellipse label="{name}"]' for name in segments]
        lines += [f'  "{n.kind} {n.machine}" -- "segment {name}"' for n in nodes for name in n.segments]
        return "\n".join([*lines, "}", ""])
    numbered = list(enumerate(nodes))
    wires = {name: f"s{number}" for number, name in enumerate(segments)}
    lines = ["graph LR"]
    lines += [f'  m{number}["{n.machine}<br>{n.arch or n.kind}"]' for number, n in numbered]
    lines += [f'  {wires[name]}(["{name}"])' for name in segments]
    lines += [f"  m{number} --- {wires[name]}" for number, n in numbered for name in n.segments]
    return "\n".join([*lines, ""])
