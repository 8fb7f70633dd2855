"""Makes a fresh Debian machine ready: missing system packages, then the environment that tox lives in.

Does nothing, quickly, on a machine that is ready.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from lab.doctor.needs import PURPOSES, needed
from lab.doctor.tools import Tool, look_all, packages_for
from lab.errors import LabError

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
#: What the environment that tox lives in holds; tox makes every other one.
TOX = ("tox>=4.24,<5", "tox-uv>=1.37,<2")

_APT = ("apt-get", "-o", "DPkg::Lock::Timeout=300")


class Failed(LabError):
    """The machine cannot be made ready from here; the message says what a person can do."""


class Host(NamedTuple):
    """Who may install packages here.

    Attributes:
        debian: whether packages come from apt.
        name: the distribution, for messages.
        become: the words before a command that needs root: empty for root itself, None when there is no way.
    """

    debian: bool
    name: str
    become: tuple[str, ...] | None


def host() -> Host:
    """Looks at this machine."""
    release = _os_release(Path("/etc/os-release"))
    families = {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
    debian = "debian" in families and shutil.which("apt-get") is not None
    return Host(debian, release.get("PRETTY_NAME", "an unknown system"), _become())


def install_command(packages: Sequence[str], become: tuple[str, ...] = ("sudo",)) -> str:
    """The one line that installs packages, for a person to copy."""
    before = f"{shlex.join(become)} " if become else ""
    names = " ".join(packages)
    return f"{before}apt-get update && {before}apt-get install -y --no-install-recommends {names}"


def ensure_packages(
    tools: Sequence[Tool],
    here: Host,
    *,
    run: Callable[[Sequence[str]], int],
    again: Callable[[], Sequence[Tool]],
) -> None:
    """Installs what is missing, if anything is.

    Args:
        tools: what was found.
        here: what this machine allows.
        run: starts one command and returns its exit status.
        again: looks once more, after an installation.

    Raises:
        Failed: something is still missing; says what, and what to type.
    """
    packages = packages_for(tools)
    if not packages:
        return
    if not here.debian:
        raise Failed(
            f"{here.name} lacks what the lab needs:\n{_lines(tools)}\nInstall these with its own tools."
        )
    if here.become is None:
        raise Failed(
            f"The lab needs packages that only root can install. Run:\n  {install_command(packages)}"
        )
    say(f"installing {' '.join(packages)}")
    install = [*here.become, *_APT, "install", "-y", "--no-install-recommends", *packages]
    # The lists come second: on most machines they are there, and fetching them takes longest. A fresh
    # machine has none, one that was off for a while has packages in them that no mirror holds any more.
    if run(install) and (run([*here.become, *_APT, "update"]) or run(install)):
        raise Failed(f"apt-get failed. See its message above, then run:\n  {install_command(packages)}")
    still = [tool for tool in again() if tool.state != "ok"]
    if still:
        raise Failed(
            f"Installed, but not what is found:\n{_lines(still)}\n"
            "An older copy may come first on PATH, or this Python may not be the distribution's: "
            "try `make PYTHON=/usr/bin/python3`."
        )


def ensure_tox(venv: Path = VENV, *, run: Callable[[Sequence[str]], int]) -> None:
    """Makes the virtual environment with tox in it, if it is not there.

    Args:
        venv: where.
        run: starts one command and returns its exit status.

    Raises:
        Failed: it could not be made.
    """
    python = venv / "bin" / "python"
    if _answers(python, "import tox, tox_uv"):
        return
    say(f"making {venv.name} with tox")
    # An environment whose interpreter is gone (a removed pyenv version) cannot be repaired, only replaced.
    if not _answers(python, "import pip") and run([sys.executable, "-m", "venv", "--clear", str(venv)]):
        raise Failed(f"{sys.executable} could not make a virtual environment in {venv}.")
    if run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *TOX]):
        raise Failed(
            "pip could not install tox. Is the network, or the proxy in the environment, all right?"
        )


def setup(purpose: str = PURPOSES[-1], arches: Collection[str] = ()) -> None:
    """Makes this machine ready.

    Args:
        purpose: what for, one of `PURPOSES`.
        arches: of the machines that will run; empty for every architecture.

    Raises:
        Failed: it cannot be done from here.
    """

    def look() -> list[Tool]:
        return look_all(needed(purpose, arches))

    ensure_packages(look(), host(), run=start, again=look)
    ensure_tox(run=start)


def say(text: str) -> None:
    """Tells the person at the terminal, before a command's own output follows."""
    print(f"phase: {text}", file=sys.stderr, flush=True)


def start(argv: Sequence[str]) -> int:
    """Runs one command with this terminal; returns its exit status."""
    try:
        return subprocess.run(
            argv,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            check=False,
        ).returncode
    except FileNotFoundError:
        return 127


def _lines(tools: Sequence[Tool]) -> str:
    return "\n".join(
        f"  {tool.need.name}: {tool.need.why} (Debian: {', '.join(tool.need.packages)}"
        + (f"; found {tool.version or 'no version'}, at {tool.where}" if tool.state == "old" else "")
        + ")"
        for tool in tools
        if tool.state != "ok"
    )


def _become() -> tuple[str, ...] | None:
    if os.geteuid() == 0:
        return ()
    if shutil.which("sudo"):
        done = subprocess.run(
            ["sudo", "-n", "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        if done.returncode == 0:
            return ("sudo", "-n", "--preserve-env=DEBIAN_FRONTEND,http_proxy,https_proxy,no_proxy")
    return None


def _answers(python: Path, code: str) -> bool:
    if not python.exists():
        return False
    try:
        done = subprocess.run([str(python), "-c", code], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _os_release(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {key.strip(): " ".join(shlex.split(value)) for key, value in pairs}
