"""A line every few seconds that says what a boot waits for."""

import time

import pytest

from phase import marks
from phase.boot.waiting import Waiting


def test_a_silent_boot_says_what_it_waits_for(capfd: pytest.CaptureFixture[str]) -> None:
    with Waiting(lambda: 41.7, every=0.05) as waiting:
        time.sleep(0.15)
        assert capfd.readouterr().err == "", "nothing is waited for"
        waiting.what = "an address from the network"
        time.sleep(0.3)
    said = capfd.readouterr().err.splitlines()
    assert set(said) == {"phase: waiting for an address from the network; 42 s left"}
    assert len(said) >= 2
    time.sleep(0.1)
    assert capfd.readouterr().err == "", "it has ended"


def test_it_does_not_speak_while_others_do(capfd: pytest.CaptureFixture[str]) -> None:
    with Waiting(lambda: 1.0, every=0.3) as waiting:
        waiting.what = "x"
        for _ in range(10):
            marks.say("progress")
            time.sleep(0.03)
    assert "waiting" not in capfd.readouterr().err
