"""A seed's own Tor: a failure is told each time it happens, and the next question starts it again."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from phase.boot import tor
from phase.boot.errors import BootError
from phase.boot.tor import Tor

#: In place of Tor's loader: it gets `--library-path PLACE PROGRAM -f TORRC …`.
_LOADER = """#!/bin/sh
log=$(sed -n 's/^Log notice file //p' "$5")
read -r said <{place}/says
echo "$said" >>"$log"
[ -e {place}/ends ] || exec sleep 60
exit 1
"""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tor:
    """One whose loader says what is in `says`, and stays unless there is `ends`."""
    monkeypatch.setattr(tor, "_route_alone", lambda: None)
    monkeypatch.setattr(tor, "USER", os.getuid())
    # Only root may have no other groups.
    monkeypatch.setattr(os, "setgroups", lambda groups: None)
    monkeypatch.setattr(os, "setgid", lambda group: None)
    monkeypatch.setattr(os, "chown", lambda *_: None)
    (tmp_path / "run").mkdir()
    (tmp_path / "ld.so").write_text(_LOADER.format(place=tmp_path))
    (tmp_path / "ld.so").chmod(0o755)
    return Tor(str(tmp_path), str(tmp_path / "run"))


def reason(made: Tor) -> str:
    """Why it cannot be started, or has ended."""
    with pytest.raises(BootError) as caught:
        until(lambda: made.progress(None) < 0)
    return caught.value.what


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_one_that_ends_is_started_again_and_its_reason_told_each_time(made: Tor, tmp_path: Path) -> None:
    (tmp_path / "ends").touch()
    for says in ("[err] no room", "[err] no clock"):
        (tmp_path / "says").write_text(f"{says}\n")
        assert reason(made) == f"Tor has ended: {says}"
    (tmp_path / "ends").unlink()
    (tmp_path / "says").write_text("Bootstrapped 45% (requesting)\n")
    until(lambda: made.progress(None) == 45)
    os.kill(made._child or 0, 9)
    assert reason(made) == "Tor has ended: Bootstrapped 45% (requesting)"


def test_what_the_last_one_has_said_is_not_of_this_one(made: Tor, tmp_path: Path) -> None:
    (tmp_path / "ends").touch()
    (tmp_path / "says").write_text("Bootstrapped 100% (done)\n")
    reason(made)
    (tmp_path / "ends").unlink()
    (tmp_path / "says").write_text("[notice] here\n")
    assert made.progress(b"") == 0
    until(lambda: "here" in made._log())
    assert made.progress(b"") == 0
    os.kill(made._child or 0, 9)
    reason(made)
