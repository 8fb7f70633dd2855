"""QMP where QEMU has connected, and where it has not greeted."""

import socket

import pytest

from lab.errors import InfrastructureError
from lab.qemu.monitor import Monitor


@pytest.mark.parametrize("said", [b"", b"not JSON\r\n", b'{"return": {}}\r\n'])
def test_a_qemu_that_hangs_up_before_it_greets(said: bytes) -> None:
    """The lab's end is closed, too: a warning of an unclosed transport would fail some later test."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(said)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(InfrastructureError, match="one: QEMU did not open its monitor"):
            Monitor("one", ours, timeout=5)
        assert theirs.recv(1) == b""
    assert ours.fileno() == -1


def test_a_qemu_that_never_greets() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with pytest.raises(InfrastructureError, match="one: QEMU did not open its monitor"):
            Monitor("one", ours, timeout=0.2)
        assert theirs.recv(1) == b""
