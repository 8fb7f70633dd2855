"""Runs the scripts that start a booted system's services, without what only such a system has."""

import os
import subprocess
from pathlib import Path

from boot import tree
from phase import cmdline

#: What would change this host, or wait.
_STUBS = {"chown": "", "sleep": "", "mount": "", "python3": "", "start-stop-daemon": 'echo "$*" >{said}'}


def started(name: str, words: str, directory: Path) -> str:
    """What a script starts, with its options; empty if it starts nothing.

    Args:
        name: of the script in `boot/files`.
        words: of the kernel command line.
        directory: for its files.
    """
    tools, run, release = directory / "bin", directory / "run", directory / "release"
    said, line, groups = directory / "said", directory / "cmdline", directory / "groups"
    for each in (tools, run, groups, release / "metadata"):
        each.mkdir(parents=True)
    for tool, does in _STUBS.items():
        (tools / tool).write_text(f"#!/bin/sh\n{does.format(said=said)}\n")
        (tools / tool).chmod(0o755)
    for each in (run / "job-ended", run / "serve.log", release / "metadata/timestamp.json"):
        each.touch()
    line.write_text(f"quiet {words}\n")
    (run / "mode").write_text(f"{cmdline.parse(words).mode}\n")
    script = (tree.HERE / "files" / name).read_text()
    places = {
        "/proc/cmdline": line,
        "/run/phase": run,
        "/sys/fs/cgroup/jobs": groups,
        "/dev/kmsg": "/dev/null",
        "[ -e /phase/release": f"[ -e {release}",
    }
    for place, instead in places.items():
        script = script.replace(place, str(instead))
    environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"}
    # bash: like busybox's shell, and unlike older ones of Debian, it knows pipefail.
    subprocess.run(["bash", "-c", script], env=environment, timeout=60, check=False)
    said_words = said.read_text().split() if said.exists() else []
    return " ".join(said_words).partition("-m phase ")[2].replace(str(run), "/run/phase")
