import configparser
import os
from pathlib import Path

import pytest

from lab import cli


def test_up_gives_a_scenario_as_long_as_tox_does(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, words: ran.append(words))
    monkeypatch.setattr(os, "chdir", lambda path: None)
    with pytest.raises(TypeError):  # execv comes back only here
        cli.main(["up", "scenarios/test_loop.py", "--lab-arch=x86_64"])
    told = configparser.ConfigParser(interpolation=None)
    told.read(Path(cli.ROOT, "tox.ini"))
    (timeout,) = {
        word for word in told["testenv:lab-{x86_64,arm64}"]["commands"].split() if "--timeout=" in word
    }
    assert timeout in ran[0]
    assert ran[0][-2:] == ["scenarios/test_loop.py", "--lab-arch=x86_64"]
