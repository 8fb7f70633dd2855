"""The command of dht.md, and the place that it names."""

import os
from pathlib import Path

from phase.discovery.dht import announcement
from tests import pages

PAGE = "docs/use/dht.md"


def test_the_info_hash(tmp_path: Path) -> None:
    """What others announce in another network stands where this one looks."""
    (block,) = pages.chosen(PAGE, "test_the_info_hash")
    pages.run([block], tmp_path, os.environ)
    assert announcement.key("stable", "x86_64").hex() in block.lines[1]
