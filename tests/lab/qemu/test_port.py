"""A virtio port beside a serial console."""

import socket
from pathlib import Path

import pytest

from lab.console import Console
from lab.errors import MachineDied
from lab.qemu.port import Port
from lab.shell import Shell


def test_a_death_that_the_serial_console_tells_ends_what_waits_on_the_port(tmp_path: Path) -> None:
    """The port of a machine that panicked only falls silent: nobody would wait for it to the end."""
    kernel, line = socket.socketpair()
    guest, wire = socket.socketpair()
    serial = Console("one", line, tmp_path / "serial")
    port = Port(serial, wire, tmp_path / "port", lost=lambda: "")
    kernel.sendall(b"Kernel panic - not syncing: sysrq triggered crash\n---[ end Kernel panic ]---\n")
    with pytest.raises(MachineDied, match="Kernel panic - not syncing: sysrq") as died:
        Shell(port, timeout=300)
    assert "end Kernel panic" in died.value.evidence
    for each in (kernel, guest):
        each.close()
    port.close()
    serial.close()
