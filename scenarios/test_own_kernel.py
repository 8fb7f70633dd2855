"""The example of lab/own-kernel.md: a project of a stranger, in a directory of its own."""

import os
import re
import shutil
from pathlib import Path

import pytest

from boot import tree
from tests import pages

_EXAMPLE = pages.PROJECT / "docs/examples/own-kernel"


@pytest.mark.lab(vcpus=1, memory=512, seconds=30)
@pytest.mark.usefixtures("lab")  # for its lease
def test_the_page(arch: str, tmp_path: Path) -> None:
    """The page's commands make an initrd and run the scenario, in a directory of its own."""
    project = tmp_path / "project"
    shutil.copytree(_EXAMPLE, project)
    root = tree.unpacked(arch) / "root"
    shutil.copyfile(tree.kernel(root), project / "kernel")
    shutil.copyfile((root / "bin/busybox").resolve(), project / "busybox")
    variables = {"ARCH": arch, "LAB_LEASES": str(tmp_path / "leases")}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    said = pages.run(
        pages.chosen("docs/lab/own-kernel.md", "test_the_page"),
        project,
        kept | pages.environment(tmp_path, variables),
        seconds=800,
    )
    assert re.search(r"^1 passed", said, re.MULTILINE), said
