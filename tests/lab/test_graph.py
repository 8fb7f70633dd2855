import pytest

from lab.graph import Format, Node, graph

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


@pytest.mark.parametrize("style", ["dot", "mermaid"])
def test_nothing_is_a_graph_too(style: Format) -> None:
    assert "--" not in graph([], style)
