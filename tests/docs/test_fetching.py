"""The commands of fetching.md, against a real provider."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

from fixtures import artifacts
from tests import pages
from tests.phase.provider.service import serving

PAGE = "docs/use/fetching.md"
SECRETS = {"PHASE_RELEASE_COST": "interactive", "PHASE_RELEASE_PASSPHRASE": "a passphrase for the docs"}


def test_the_page(tmp_path: Path) -> None:
    """What was published is there in the end, byte for byte."""
    (tmp_path / "vmlinuz").write_bytes(artifacts.kernel(size=70_000))
    variables = pages.environment(tmp_path, SECRETS)
    for words in (
        "init repo --new-keys keys",
        "add repo stable x86_64 --kernel vmlinuz --release 1 --keys keys",
    ):
        argv = [sys.executable, "-m", "phase", "release", *words.split()]
        subprocess.run(argv, cwd=tmp_path, env=variables, check=True, capture_output=True)
    shutil.copyfile(tmp_path / "repo/metadata/1.root.json", tmp_path / "root.json")
    with serving(tmp_path / "repo", "--bind", "127.0.0.1", "--port", "0", "--no-mdns", "--no-dht") as (
        url,
        _,
    ):
        blocks = [
            dataclasses.replace(
                block, lines=tuple(line.replace("http://192.0.2.7:8080", url) for line in block.lines)
            )
            for block in pages.chosen(PAGE, "test_the_page")
        ]
        pages.run(blocks, tmp_path, {**os.environ, **variables})
    kept = [path.read_bytes() for path in (tmp_path / "mirror/blobs/sha256").iterdir()]
    assert artifacts.kernel(size=70_000) in kept
