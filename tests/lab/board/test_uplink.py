import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.board.uplink import Uplink
from lab.errors import InfrastructureError
from lab.net.switch import Switch

FRAME = bytes.fromhex("ffffffffffff 525400000001 88b5") + b"over the cable".ljust(50, b"\0")
ANSWER = bytes.fromhex("525400000001 525400000002 88b5") + b"and back".ljust(50, b"\0")


@pytest.fixture
def cable() -> Iterator[tuple[str, str]]:
    """Two interfaces of the host, one end of a cable each."""
    names = (f"lab{os.getpid() % 100_000}a", f"lab{os.getpid() % 100_000}b")
    made = subprocess.run(
        ["ip", "link", "add", names[0], "type", "veth", "peer", "name", names[1]],
        capture_output=True,
        text=True,
    )
    if made.returncode:
        pytest.skip(f"this host does not let us make interfaces: {made.stderr.strip()}")
    try:
        for name in names:
            subprocess.run(["ip", "link", "set", name, "up"], check=True)
        yield names
    finally:
        subprocess.run(["ip", "link", "del", names[0]], check=True)


def test_frames_go_both_ways(tmp_path: Path, cable: tuple[str, str]) -> None:
    switch = Switch("lan", tmp_path)
    try:
        board, other = switch.attach("board"), switch.attach("other")
        with (
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5)) as there,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as machine,
            Uplink(cable[0], board),
        ):
            there.bind((cable[1], 0x88B5))
            there.settimeout(20)
            machine.bind(str(other.machine_socket))
            machine.settimeout(20)
            there.send(FRAME)
            while (frame := machine.recv(2048)) != FRAME:
                assert frame[12:14] != b"\x88\xb5", frame
            machine.sendto(ANSWER, str(other.switch_socket))
            assert there.recv(2048) == ANSWER
    finally:
        switch.close()


def test_an_interface_that_is_not_there(tmp_path: Path) -> None:
    switch = Switch("lan", tmp_path)
    try:
        with pytest.raises(
            InfrastructureError, match=r"uplink nothing0 cannot be used.*root or CAP_NET_RAW"
        ):
            Uplink("nothing0", switch.attach("board"))
    finally:
        switch.close()


def test_a_host_that_is_no_linux_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_PACKET")
    switch = Switch("lan", tmp_path)
    try:
        with pytest.raises(InfrastructureError, match="only Linux"):
            Uplink("en0", switch.attach("board"))
    finally:
        switch.close()
