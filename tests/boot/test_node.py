"""What a booted system's node is started with, by the kernel command line."""

import os
import subprocess
from pathlib import Path

import pytest

from boot import tree

_KEY, _OTHER = "a" * 64, "b" * 64


def _started(words: str, directory: Path) -> str:
    """The options that the node is given; empty if it is not started."""
    tools = directory / "bin"
    tools.mkdir()
    said = directory / "said"
    # What only a booted system has is not touched, and what would wait does not.
    for name, does in {"start-stop-daemon": f'echo "$*" >{said}', "chown": "", "sleep": ""}.items():
        (tools / name).write_text(f"#!/bin/sh\n{does}\n")
        (tools / name).chmod(0o755)
    run, groups, line = directory / "run", directory / "groups", directory / "cmdline"
    for each in (run, groups):
        each.mkdir()
    (run / "job-ended").touch()
    line.write_text(f"quiet {words}\n")
    script = (tree.HERE / "files/node").read_text()
    places = {
        "/proc/cmdline": line,
        "/run/phase": run,
        "/sys/fs/cgroup/jobs": groups,
        "/dev/kmsg": "/dev/null",
    }
    for place, instead in places.items():
        script = script.replace(place, str(instead))
    environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"}
    # bash: like busybox's shell, and unlike older ones of Debian, it knows pipefail.
    subprocess.run(["bash", "-c", script], env=environment, timeout=60, check=False)
    return said.read_text().strip().partition("--state /var/lib/phase ")[2] if said.exists() else ""


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
        ("phase.node=open phase.dht=a:1 phase.mode=local", "--open --no-dht"),
        ("phase.node=open phase.mode=private", ""),
    ],
)
def test_the_command_line_decides(words: str, options: str, tmp_path: Path) -> None:
    assert " ".join(_started(words, tmp_path).split()) == options
