"""Which machine is on which segment, as text that drawing programs read."""

from collections.abc import Sequence
from typing import Literal

import msgspec

Format = Literal["dot", "mermaid"]


class Node(msgspec.Struct, frozen=True):
    """A machine, and the segments its cards are plugged into, in order."""

    machine: str
    arch: str
    segments: tuple[str, ...] = ()


def graph(nodes: Sequence[Node], style: Format) -> str:
    """A topology's graph. Names are the lab's own: letters, digits and `-`.

    Args:
        nodes: its machines.
        style: `dot` for Graphviz, `mermaid` for what GitHub and GitLab draw in Markdown.
    """
    segments = list(dict.fromkeys(name for node in nodes for name in node.segments))
    if style == "dot":
        lines = ["graph topology {", "  node [fontname=sans]"]
        lines += [f'  "machine {n.machine}" [shape=box label="{n.machine}\\n{n.arch}"]' for n in nodes]
        lines += [f'  "segment {name}" [shape=ellipse label="{name}"]' for name in segments]
        lines += [f'  "machine {n.machine}" -- "segment {name}"' for n in nodes for name in n.segments]
        return "\n".join([*lines, "}", ""])
    machines = {node.machine: f"m{number}" for number, node in enumerate(nodes)}
    wires = {name: f"s{number}" for number, name in enumerate(segments)}
    lines = ["graph LR"]
    lines += [f'  {machines[n.machine]}["{n.machine}<br>{n.arch}"]' for n in nodes]
    lines += [f'  {wires[name]}(["{name}"])' for name in segments]
    lines += [f"  {machines[n.machine]} --- {wires[name]}" for n in nodes for name in n.segments]
    return "\n".join([*lines, ""])
