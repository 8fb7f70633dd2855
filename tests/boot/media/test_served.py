"""`python -m boot build netboot`: the tree, and what it refuses."""

import subprocess
from pathlib import Path

import pytest

from boot.errors import BuildError
from boot.media import served
from boot.media.build import Plan
from boot.media.served import Seed

LINE = "console=ttyS0 quiet phase.channel=stable"
SEEDS = {
    "x86_64": Seed(b"kernel", b"initramfs", b"MZuki", LINE),
    "arm64": Seed(b"Image", b"initramfs", b"MZarm", LINE),
}


def content(tree: Path) -> dict[str, bytes]:
    return {str(path.relative_to(tree)): path.read_bytes() for path in tree.rglob("*") if path.is_file()}


def test_the_tree_is_whole_and_the_same_each_time(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    written = served.write(one, SEEDS)
    served.write(other, SEEDS)
    found = content(one)
    assert found == content(other)
    assert {str(path.relative_to(one)) for path in written} == set(found)
    assert sorted(found) == [
        "SHA256SUMS",
        "arm64/boot.efi",
        "arm64/boot.ipxe",
        "arm64/initramfs",
        "arm64/kernel",
        "boot.ipxe",
        "x86_64/boot.efi",
        "x86_64/boot.ipxe",
        "x86_64/initramfs",
        "x86_64/kernel",
    ]
    assert found["arm64/boot.efi"] == b"MZarm"
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=one, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.count(": OK\n")) == (0, len(found) - 1)
    # A server runs as somebody else.
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in written)


def test_scripts_name_nothing_by_an_address(tmp_path: Path) -> None:
    served.write(tmp_path, SEEDS)
    assert (tmp_path / "x86_64/boot.ipxe").read_text() == (
        f"#!ipxe\nkernel kernel initrd=initramfs {LINE}\ninitrd --name initramfs initramfs\nboot\n"
    )
    assert "chain --replace ${arch}/boot.ipxe\n" in (tmp_path / "boot.ipxe").read_text()


def test_newer_seeds_replace_those_that_were_there_and_nothing_else(tmp_path: Path) -> None:
    served.write(tmp_path, SEEDS)
    (tmp_path / "pxelinux.0").write_bytes(b"another's")
    served.write(tmp_path, {"x86_64": SEEDS["x86_64"]._replace(kernel=b"newer")})
    assert (tmp_path / "x86_64/kernel").read_bytes() == b"newer"
    assert (tmp_path / "pxelinux.0").read_bytes() == b"another's"


@pytest.mark.parametrize("word", ["||", "&&", ";", "#x", "a=${b}"])
def test_a_word_that_means_something_to_ipxe_is_refused(word: str, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="iPXE has no way to quote"):
        served.write(tmp_path, {"x86_64": SEEDS["x86_64"]._replace(line=f"quiet {word}")})
    assert not list(tmp_path.iterdir())


def test_what_a_tree_cannot_have(tmp_path: Path) -> None:
    plan = Plan(("x86_64",), b"")
    with pytest.raises(BuildError, match="no partition"):
        served.make(plan._replace(kept=1 << 30), tmp_path)
    with pytest.raises(BuildError, match="no loader"):
        served.make(plan._replace(loader="grub"), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(BuildError, match="is not a directory"):
        served.make(plan, tmp_path / "file")
