"""Finds what `needs` lists on this machine, and says what is missing or too old."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from lab.doctor.needs import NEEDS, Need

#: Where administrators' tools are on distributions whose users do not have them on their path.
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_DOTTED = re.compile(r"(?<![\w.])v?(\d+(?:\.\d+)+)")
_ALONE = re.compile(r"(?<![\w.-])v?(\d+)(?![\w-])")


class Tool(NamedTuple):
    """What was found of one need.

    Attributes:
        need: what was looked for.
        state: `ok`, `missing` or `old`.
        version: as the tool prints it; empty when no version was asked for.
        where: the command's or file's path; empty when missing.
    """

    need: Need
    state: str
    version: str
    where: str


def search_path() -> str:
    """The search path of commands, with the administrators' directories at its end."""
    words = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join([*words, *(place for place in _SBIN if place not in words)])


def parse_version(text: str) -> tuple[int, ...]:
    """The version in what a tool printed; empty when there is none.

    The first number with a dot in it is taken, else the first that stands alone: tools print their word
    size ("64-bit", "aarch64") before their version as often as after it.
    """
    found = _DOTTED.search(text) or _ALONE.search(text)
    return tuple(int(part) for part in found.group(1).split(".")) if found else ()


def look(need: Need) -> Tool:
    """Looks for one need on this machine."""
    if need.modules:
        return _look_for_modules(need)
    if need.files:
        where = next((name for name in need.files if Path(name).is_file()), "")
        return Tool(need, "ok" if where else "missing", "", where)
    path = search_path()
    where = next((found for name in need.commands if (found := shutil.which(name, path=path))), "")
    if not where or not need.version:
        return Tool(need, "ok" if where else "missing", "", where)
    version = parse_version(_ask(where, need.version))
    text = ".".join(map(str, version))
    return Tool(need, "ok" if version >= need.minimum else "old", text, where)


def look_all(needs: Iterable[Need] = NEEDS) -> list[Tool]:
    """Looks for everything; see `look`."""
    return [look(need) for need in needs]


def packages_for(tools: Iterable[Tool]) -> list[str]:
    """The Debian packages that would bring what is missing or too old, in the list's order."""
    names = (name for tool in tools if tool.state != "ok" for name in tool.need.packages)
    return list(dict.fromkeys(names))


def _look_for_modules(need: Need) -> Tool:
    # Not find_spec: Debian leaves a `venv` behind that cannot make a virtual environment.
    done = subprocess.run(
        [sys.executable, "-c", f"import {', '.join(need.modules)}"], capture_output=True, check=False
    )
    found = done.returncode == 0
    version = ".".join(map(str, sys.version_info[:3])) if found else ""
    return Tool(need, "ok" if found else "missing", version, sys.executable if found else "")


def _ask(command: str, arguments: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(
            [command, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr
