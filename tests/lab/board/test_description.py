from pathlib import Path

import pytest

from lab.board.description import read
from lab.errors import MisuseError

LEAST = """
arch = "arm64"
console = "ttyS0,115200"
[serial]
url = "/dev/ttyUSB0"
[power]
on = "relay on"
off = "relay off"
[medium]
write = "cp $LAB_MEDIUM/* /srv/tftp/"
"""


def test_the_least_a_file_says(tmp_path: Path) -> None:
    path = tmp_path / "pi.toml"
    path.write_text(LEAST)
    found = read(path)
    assert (found.name, found.serial.speed, found.loader, found.network) == ("pi", 115200, None, None)
    assert found.directory == tmp_path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LEAST.replace("arm64", "riscv64"), r"riscv64.*arch"),
        (LEAST.replace('url = "/dev/ttyUSB0"', ""), r"no \[serial\] url"),
        (LEAST.replace('off = "relay off"', ""), r"no \[power\] on and off"),
        (LEAST.replace("[serial]", "[serial]\nspeed = 0"), r"\[serial\] speed"),
        (LEAST.replace("[serial]", "[serial]\nline_delay = -1.0"), "negative"),
        (LEAST.replace("[serial]", "[serial]\nbaud = 9600"), "unknown field `baud`"),
        (LEAST.replace("[medium]", "[medum]"), "medum|medium"),
        ("arch = ", "pi.toml is not a board file"),
        ("", "arch"),
    ],
)
def test_a_file_that_says_something_else(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "pi.toml"
    path.write_text(text)
    with pytest.raises(MisuseError, match=message):
        read(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match=r"none\.toml cannot be read"):
        read(tmp_path / "none.toml")
