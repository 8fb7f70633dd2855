"""What docs/lab/boards.md tells people to type is what the lab reads."""

import re
import subprocess
from pathlib import Path

import pytest

from lab.board.description import Description, read

PAGE = (Path(__file__).resolve().parents[3] / "docs/lab/boards.md").read_text()
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def blocks(kind: str, text: str = PAGE) -> list[str]:
    """Blocks of a language, without the list's indentation."""
    found = [(len(indent), body) for indent, word, body in BLOCK.findall(text) if word == kind]
    return ["".join(line[width:] or "\n" for line in body.splitlines(True)) for width, body in found]


def recipe(heading: str) -> str:
    """One recipe of the page, to the next heading."""
    return PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def described(text: str, directory: Path) -> Description:
    path = directory / "board.toml"
    path.write_text(text)
    return read(path)


@pytest.mark.parametrize("text", blocks("toml"))
def test_every_file_on_the_page_is_one(text: str, tmp_path: Path) -> None:
    assert described(text, tmp_path).console


@pytest.mark.parametrize(
    ("heading", "arch", "console"),
    [("A Raspberry Pi 4", "arm64", "ttyS1"), ("An x86 mini-PC", "x86_64", "ttyS0")],
)
def test_a_recipe_is_whole(heading: str, arch: str, console: str, tmp_path: Path) -> None:
    """One file, complete: line, power, medium, cable; and the steps speak of the same line."""
    text = recipe(heading)
    (file,) = blocks("toml", text)
    board = described(file, tmp_path)
    assert (board.arch, board.console) == (arch, f"{console},115200")
    assert board.serial.url.startswith("/dev/serial/by-id/")
    assert board.power.on
    assert board.power.off
    assert board.network is not None
    serial = text.partition("**Serial.**")[2].partition("**Power.**")[0]
    assert f"`{console}`" in serial
    # The firmware starts what lies on the card: nothing has to be typed, and nothing served.
    assert board.loader is None
    assert "/srv/tftp" not in text
    (script,) = blocks("sh", text)
    assert board.medium.write.startswith("./write-medium ")
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
    assert all(f"$LAB_MEDIUM/{name}" in script for name in ("kernel", "initrd", "cmdline"))
