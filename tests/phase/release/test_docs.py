"""Every command of releases.md and ceremony.md works as it is printed, in its order."""

import re
from pathlib import Path

import pytest

from fixtures import artifacts
from tests import pages


def run_page(page: str, test: str, directory: Path) -> str:
    """Run what a page says that a test runs; what it prints."""
    (directory / "vmlinuz").write_bytes(artifacts.kernel(size=70_000))
    (directory / "initrd.img").write_bytes(artifacts.initramfs())
    secrets = {
        "PHASE_RELEASE_COST": "interactive",
        "PHASE_RELEASE_PASSPHRASE": "a passphrase for the docs",
    }
    return pages.run(pages.chosen(page, test), directory, pages.environment(directory, secrets))


@pytest.mark.timeout(300)
def test_publishing(tmp_path: Path) -> None:
    said = run_page("docs/use/releases.md", "test_publishing", tmp_path)
    assert "testing/x86_64 1.0 (version 1) verified" in said
    assert "Signature Verified Successfully" in said
    assert said.splitlines()[-1] == "good"


@pytest.mark.timeout(300)
def test_the_ceremony(tmp_path: Path) -> None:
    said = run_page("docs/use/ceremony.md", "test_the_ceremony", tmp_path)
    assert said.count("published in repo") == 4
    # What the holders saw before they signed is what the publisher sees at the end.
    (told,) = set(re.findall(r"; its id is ([0-9a-f]{64})$", said, re.MULTILINE))
    assert set(re.findall(r"^the repository's id is (\w+)$", said, re.MULTILINE)) == {told}
    assert "stable/x86_64 1.0 (version 1) verified" in said
    assert (tmp_path / "repo/metadata/2.root.json").exists()
    assert not (tmp_path / "repo/metadata/3.root.json").exists()
    holders = [tmp_path / f"holder{n}" for n in (1, 2, 3, 4)]
    assert all(len(list(each.glob("root-*.json"))) == 1 for each in holders)
