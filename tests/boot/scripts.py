"""Runs the scripts that start a booted system's services, without what only such a system has."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from boot import tree
from phase import cmdline

#: What would change this host, or wait.
_STUBS = {
    "chown": "",
    "sleep": "",
    "mount": "{mount}",
    "umount": "",
    "python3": 'echo "$*" >>{python}; exit {status}',
    "start-stop-daemon": 'echo "$*" >{said}',
}


def started(
    name: str,
    words: str,
    directory: Path,
    *,
    metadata: Mapping[str, str] = {"1.root.json": ""},
    times: int = 1,
    status: int = 0,
    mount: str = "",
) -> str:
    """What a script starts, with its options; empty if it starts nothing.

    Args:
        name: of the script in `boot/files`.
        words: of the kernel command line.
        directory: for its files; `python` there has the words of each call of Python.
        metadata: further files of the metadata of the release that runs.
        times: how often the script is started, as by init after its end.
        status: what Python ends with.
        mount: what `mount` does, as a line of shell.
    """
    tools, run, release = directory / "bin", directory / "run", directory / "release"
    python = directory / "python"
    said, line, groups = directory / "said", directory / "cmdline", directory / "groups"
    for each in (tools, run, groups, release / "metadata"):
        each.mkdir(parents=True)
    for tool, does in _STUBS.items():
        (tools / tool).write_text(
            f"#!/bin/sh\n{does.format(said=said, python=python, status=status, mount=mount)}\n"
        )
        (tools / tool).chmod(0o755)
    for each in (run / "job-ended", run / "serve.log", release / "metadata/timestamp.json"):
        each.touch()
    for file, content in metadata.items():
        (release / "metadata" / file).write_text(content)
    line.write_text(f"quiet {words}\n")
    (run / "mode").write_text(f"{cmdline.parse(words).mode}\n")
    script = (tree.HERE / "files" / name).read_text()
    places = {
        "/proc/cmdline": line,
        "/run/phase": run,
        "/sys/fs/cgroup/jobs": groups,
        "/dev/kmsg": "/dev/null",
        "/phase/release/metadata": release / "metadata",
    }
    for place, instead in places.items():
        script = script.replace(place, str(instead))
    environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"}
    # bash: like busybox's shell, and unlike older ones of Debian, it knows pipefail.
    # What it starts beside itself has ended then, too.
    for _ in range(times):
        subprocess.run(["bash", "-c", f"trap wait EXIT\n{script}"], env=environment, timeout=60, check=False)
    said_words = said.read_text().split() if said.exists() else []
    return (
        " ".join(said_words)
        .partition("-m phase ")[2]
        .replace(str(run), "/run/phase")
        .replace(str(release), "/phase/release")
    )


def reads(name: str, line: str) -> str:
    """What an awk script of `boot/files` prints of a kernel command line."""
    done = subprocess.run(
        ["/bin/busybox", "awk", "-f", tree.HERE / "files" / name],
        input=f"{line}\n",
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout.strip()
