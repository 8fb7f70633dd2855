"""What the guide shows is run."""

import re
from collections.abc import Callable
from pathlib import Path

from lab.net.faults import NONE, Faults
from lab.topology import Lab

GUIDE = Path(__file__).parents[3] / "docs/lab/network.md"


def example(title: str, name: str) -> Callable[..., None]:
    """A scenario that the guide shows under a title."""
    section = GUIDE.read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]
    (source,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    found: dict[str, object] = {}
    exec(compile(source, str(GUIDE), "exec"), found)  # noqa: S102 - that is what is tried
    shown = found[name]
    assert callable(shown)
    return shown


def test_the_cable_of_the_guide(tmp_path: Path) -> None:
    (kernel := tmp_path / "kernel").touch()
    with Lab() as lab:
        example("What may be wrong with a cable", "test_a_bad_cable")(lab, kernel)
        lan = lab.segments["lan"]
        assert lan.link("one").to_machine == NONE
        assert lan.link("dhcp").from_machine == Faults(delay=5)


def test_the_ipv6_router_of_the_guide() -> None:
    with Lab() as lab:
        example("IPv6, and addresses that are taken", "test_ipv6_only")(lab)
        assert lab.segments["lan"].dhcp.faults.silent
        assert set(lab.segments["lan"].switch.nodes) == {"dhcp", "router6", "neighbour"}


def test_the_routers_of_the_guide(tmp_path: Path) -> None:
    (kernel := tmp_path / "kernel").touch()
    with Lab() as lab:
        example("Routers, NAT and firewalls", "test_behind_a_nat")(lab, kernel)
        assert set(lab.routers) == {"box", "second"}
