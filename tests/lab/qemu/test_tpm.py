"""A machine's TPM, a program."""

import socket
from pathlib import Path

import pytest

from lab.errors import InfrastructureError
from lab.qemu import tpm


def test_it_listens_once_it_has_started_and_starts_again(tmp_path: Path) -> None:
    for _ in range(2):
        process = tpm.start(tmp_path)
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(tmp_path / "tpm"))
            assert process.running
        finally:
            process.stop()
    assert not process.running


def test_one_that_does_not_start_says_why(tmp_path: Path) -> None:
    # The path of a socket has 107 bytes at most.
    long = tmp_path / ("x" * 100)
    long.mkdir()
    with pytest.raises(InfrastructureError, match="swtpm did not start") as caught:
        tpm.start(long)
    assert "swtpm said: " in str(caught.value.evidence)
    assert "swtpm said: nothing" not in str(caught.value.evidence)
