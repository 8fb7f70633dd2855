"""What holds for every test."""

import signal

import pytest


@pytest.fixture(scope="session", autouse=True)
def _signals_as_usual() -> None:
    """Undo what `nohup` and the background of a script do: children ignore these signals."""
    for number in (signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
