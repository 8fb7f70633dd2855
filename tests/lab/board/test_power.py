import os
from pathlib import Path

import pytest

from lab.board.description import Power
from lab.board.power import Commands
from lab.errors import InfrastructureError


def test_a_slow_host_gets_more_time_to_switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.board.power._SWITCHING", 0.1)
    power = Power(on="sleep 1", off="true")
    Commands(power, tmp_path, os.environ, 100).on()
    with pytest.raises(InfrastructureError, match="switching the board on took longer"):
        Commands(power, tmp_path, os.environ).on()
