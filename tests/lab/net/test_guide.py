"""What the guide shows is run."""

import re
from pathlib import Path

from lab.net.faults import NONE, Faults
from lab.topology import Lab

GUIDE = Path(__file__).parents[3] / "docs/network.md"


def test_the_guides_example_runs(tmp_path: Path) -> None:
    (kernel := tmp_path / "kernel").touch()
    (source,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    found: dict[str, object] = {}
    exec(compile(source, str(GUIDE), "exec"), found)  # noqa: S102 - that is what is tried
    example = found["test_a_bad_cable"]
    assert callable(example)
    with Lab() as lab:
        example(lab, kernel)
        lan = lab.segments["lan"]
        assert lan.link("one").to_machine == NONE
        assert lan.link("dhcp").from_machine == Faults(delay=5)
