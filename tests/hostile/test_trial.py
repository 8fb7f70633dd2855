"""What watches the client notices what it should."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.hostile import trial
from fixtures.hostile.provider import attack


def test_what_is_executed_or_written_elsewhere_is_seen(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    with trial._watched(inside) as strayed:
        (inside / "a").write_bytes(b"")
        (inside / "a").rename(inside / "b")
        (inside / "b").read_bytes()
        assert strayed == []
        (tmp_path / "c").write_bytes(b"")
        os.rename(inside / "b", outside)
        (inside / ".." / "inner").mkdir()
        subprocess.run([sys.executable, "-c", ""], check=True)
    assert f"open {tmp_path / 'c'}" in strayed
    assert f"os.rename {outside}" in strayed
    assert f"os.mkdir {tmp_path / 'inner'}" in strayed
    assert any(line.startswith("subprocess.Popen ") for line in strayed)


def test_memory_is_seen() -> None:
    before = trial.peak(reset=True)
    block = bytearray(b"x") * (32 << 20)
    assert trial.peak() - before >= len(block) - (1 << 20)


def test_two_attacks_have_two_names() -> None:
    def flipped_bit(provider: object) -> None:
        """Like one there is."""

    with pytest.raises(ValueError, match="two attacks are called flipped-bit"):
        attack("", says="")(flipped_bit)
