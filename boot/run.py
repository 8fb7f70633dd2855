"""Starts every outside tool that an image build uses."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from boot.errors import BuildError

#: Fixed for every tool: a time zone, locale or umask of the host must not reach the image.
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "TZ": "UTC", "SOURCE_DATE_EPOCH": "315532800"}
#: Where administrators' tools are, on distributions whose users do not have them on their path.
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 600,
    hint: str = "",
    stdin: str = "",
) -> str:
    """Run one tool to its end.

    Args:
        argv: the tool and its arguments.
        cwd: its working directory.
        env: additions to the environment.
        timeout: seconds until it is killed.
        hint: what a person can do if it fails.
        stdin: what it reads.

    Returns:
        Its standard output.

    Raises:
        BuildError: the tool is missing, failed or ran out of time; carries its last lines.
    """
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env={**os.environ, **_ENVIRONMENT, "PATH": _path(), **(env or {})},
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise BuildError(
            f"{words[0]} is not installed", hint="Run `python3 -m lab doctor` to see what is missing."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{words[0]} did not end within {timeout:.0f} s", hint=hint) from error
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise BuildError(f"`{' '.join(words)[:300]}` exited {done.returncode}:\n{tail}\n", hint=hint)
    return done.stdout


def _path() -> str:
    words = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join([*words, *(place for place in _SBIN if place not in words)])
