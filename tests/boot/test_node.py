"""What a booted system's node is started with, by the kernel command line."""

from pathlib import Path

import pytest

from tests.boot.scripts import started

_KEY, _OTHER = "a" * 64, "b" * 64


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("", ""),
        ("phase.job=hello phase.relay=http://192.0.2.1:80", ""),
        ("phase.node=open", "--open"),
        (f"phase.node={_KEY},{_OTHER}", f"--allow {_KEY} --allow {_OTHER}"),
        (
            "phase.node=open phase.relay=http://a:1,http://b:2",
            "--open --relay http://a:1 --relay http://b:2",
        ),
        ("phase.node=open phase.mdns=off phase.dht=off", "--open --no-mdns --no-dht"),
        ("phase.node=open phase.dht=a:1,b:2", "--open --dht a:1 --dht b:2"),
        ("phase.node=open phase.mode=private", ""),
    ],
)
def test_the_command_line_decides(words: str, options: str, tmp_path: Path) -> None:
    said = started("node", words, tmp_path)
    assert said.removeprefix("node --mode internet --state /var/lib/phase ") == options


def test_the_mode_is_handed_on(tmp_path: Path) -> None:
    said = started("node", "phase.node=open phase.dht=a:1 phase.mode=local", tmp_path)
    assert said.startswith("node --mode local ")
