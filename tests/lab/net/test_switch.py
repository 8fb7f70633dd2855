"""The switch over real sockets, as QEMU uses them: one bound socket per machine, frames sent to its port."""

import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.errors import InfrastructureError, MisuseError
from lab.net.capture import read
from lab.net.faults import NONE, Faults
from lab.net.switch import Switch

EVERYBODY = b"\xff" * 6


class Nic:
    """A machine's end of a cable."""

    def __init__(self, switch: Switch, name: str, number: int) -> None:
        self.port = switch.attach(name)
        self.mac = b"\x52\x54\0\0\0" + bytes([number])
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.port.machine_socket))
        self.socket.settimeout(5)

    def send(self, to: bytes, payload: bytes = b"payload") -> bytes:
        frame = to + self.mac + b"\x88\xb5" + payload
        self.socket.sendto(frame, str(self.port.switch_socket))
        return frame

    def receive(self) -> bytes:
        return self.socket.recv(65536)

    def hears_nothing(self) -> bool:
        self.socket.settimeout(0.1)
        try:
            self.receive()
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(5)
        return False


class Lan:
    def __init__(self, directory: Path) -> None:
        self.switch = Switch("lan", directory)
        self.a, self.b, self.c = (Nic(self.switch, name, number) for number, name in enumerate("abc"))

    def learn(self) -> None:
        """Everybody has spoken once."""
        for nic in (self.a, self.b, self.c):
            nic.send(EVERYBODY)
            for other in (self.a, self.b, self.c):
                if other is not nic:
                    other.receive()


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[Lan]:
    made = Lan(tmp_path)
    yield made
    for nic in (made.a, made.b, made.c):
        nic.socket.close()
    made.switch.close()


def test_what_is_for_everybody_reaches_everybody_else(lan: Lan) -> None:
    frame = lan.a.send(EVERYBODY)
    assert lan.b.receive() == lan.c.receive() == frame
    assert lan.a.hears_nothing()


def test_a_known_address_is_reached_alone(lan: Lan) -> None:
    lan.learn()
    frame = lan.a.send(lan.b.mac)
    assert lan.b.receive() == frame
    assert lan.c.hears_nothing()
    assert lan.switch.frames == {"a": 2, "b": 1, "c": 1}


def test_an_unknown_address_is_asked_for_everywhere(lan: Lan) -> None:
    frame = lan.a.send(b"\x52\x54\0\0\0\x99")
    assert lan.b.receive() == lan.c.receive() == frame


def test_a_machine_may_move(lan: Lan) -> None:
    lan.learn()
    lan.c.mac = lan.b.mac
    lan.c.send(lan.a.mac)
    lan.a.receive()
    lan.a.send(lan.b.mac)
    lan.c.receive()
    assert lan.b.hears_nothing()


def test_a_partition_is_silent_and_heals(lan: Lan) -> None:
    lan.learn()
    lan.b.port.partitioned = True
    lan.a.send(lan.b.mac)
    assert lan.b.hears_nothing()
    lan.b.send(lan.a.mac)
    assert lan.a.hears_nothing()
    assert lan.b.port.dropped == 2
    lan.b.port.partitioned = False
    lan.a.send(lan.b.mac)
    lan.b.receive()


def test_single_frames_are_dropped_either_way(lan: Lan) -> None:
    lan.learn()
    lan.b.port.drop = lambda frame: b"bad" in frame
    lan.a.send(lan.b.mac, b"bad")
    lan.a.send(lan.b.mac, b"good")
    assert lan.b.receive().endswith(b"good")
    lan.b.send(lan.a.mac, b"bad")
    lan.b.send(lan.a.mac, b"good")
    assert lan.a.receive().endswith(b"good")
    assert lan.b.port.dropped == 2


def test_a_slow_machine_loses_nothing_that_fits_and_keeps_order(lan: Lan) -> None:
    lan.learn()
    count = 1500
    for number in range(count):
        lan.a.send(lan.b.mac, struct.pack("!I", number))
    deadline = time.monotonic() + 10
    while lan.switch.frames["a"] < count + 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert lan.b.port.queue, "the kernel took everything: the queue was not tried"
    arrived = [struct.unpack("!I", lan.b.receive()[14:])[0] for _ in range(count)]
    assert arrived == list(range(count))
    lan.a.send(lan.b.mac, b"after")
    assert lan.b.receive().endswith(b"after")


def test_waiting_for_a_slow_machine_costs_no_time(lan: Lan) -> None:
    lan.learn()
    for number in range(500):
        lan.a.send(lan.b.mac, struct.pack("!I", number))
    time.sleep(0.1)
    assert lan.b.port.queue
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.25, "the switch spins"


def test_a_machine_that_never_reads_loses_frames_and_harms_nobody(lan: Lan) -> None:
    lan.learn()
    for number in range(4000):
        lan.a.send(lan.b.mac, struct.pack("!I", number))
    lan.a.send(lan.c.mac, b"still")
    assert lan.c.receive().endswith(b"still")
    assert lan.b.port.dropped > 0


def test_a_machine_may_go_and_come_back(lan: Lan) -> None:
    lan.learn()
    lan.b.socket.close()
    lan.a.send(lan.b.mac)
    lan.a.send(lan.c.mac)
    lan.c.receive()
    assert lan.b.port.dropped == 1
    lan.b.port.machine_socket.unlink()
    lan.b.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    lan.b.socket.bind(str(lan.b.port.machine_socket))
    lan.b.socket.settimeout(5)
    lan.b.send(lan.a.mac)
    lan.a.receive()
    lan.a.send(lan.b.mac)
    lan.b.receive()


def test_a_cable_may_be_taken_away_with_frames_in_it(lan: Lan, tmp_path: Path) -> None:
    lan.learn()
    for number in range(500):
        lan.a.send(lan.b.mac, struct.pack("!I", number))
    deadline = time.monotonic() + 10
    while not lan.b.port.queue and time.monotonic() < deadline:
        time.sleep(0.01)
    lan.switch.detach("b")
    assert not lan.b.port.switch_socket.exists()
    assert not lan.b.port.machine_socket.exists()
    while not lan.c.hears_nothing():
        pass
    lan.a.send(lan.c.mac)
    lan.c.receive()


def test_scraps_are_ignored(lan: Lan) -> None:
    lan.a.socket.sendto(b"short", str(lan.a.port.switch_socket))
    lan.a.socket.sendto(b"", str(lan.a.port.switch_socket))
    lan.a.send(EVERYBODY)
    lan.b.receive()
    assert lan.switch.frames["a"] == 1


def test_a_service_answers_who_asked(lan: Lan) -> None:
    lan.switch.add_service(lambda frame: [frame[6:12] + b"\x52\x54\0\xaa\0\0" + frame[12:14] + b"answer"])
    lan.a.send(EVERYBODY)
    lan.b.receive()
    assert lan.a.receive().endswith(b"answer")
    assert lan.b.hears_nothing()


def test_a_name_is_taken_once(lan: Lan) -> None:
    with pytest.raises(MisuseError, match="a is on the segment lan already"):
        lan.switch.attach("a")


def test_what_ends_the_switch_is_told_when_it_is_closed(tmp_path: Path) -> None:
    switch = Switch("lan", tmp_path)
    nic = Nic(switch, "a", 1)

    def broken(frame: bytes) -> list[bytes]:
        raise RuntimeError("broken service")

    switch.add_service(broken)
    nic.send(EVERYBODY)
    deadline = time.monotonic() + 5
    while switch.failure is None and time.monotonic() < deadline:
        time.sleep(0.01)
    nic.socket.close()
    with pytest.raises(InfrastructureError, match=r"segment lan has ended.*broken service"):
        switch.close()
    assert not list(tmp_path.glob("*.sw"))


def test_what_comes_after_the_end_goes_nowhere(tmp_path: Path) -> None:
    """A router's other segment still sends; the number of the pipe that woke this one is another file's."""
    switch = Switch("lan", tmp_path)
    node = switch.add_service(lambda frame: [], "router")
    switch.close()
    reused = [os.open(tmp_path / f"file-{number}", os.O_RDWR | os.O_CREAT) for number in range(16)]
    node.send(EVERYBODY * 10)
    for descriptor in reused:
        os.close(descriptor)
    assert [path.stat().st_size for path in tmp_path.glob("file-*")] == [0] * 16


def test_closing_leaves_a_capture_and_nothing_else(tmp_path: Path) -> None:
    lan = Lan(tmp_path)
    lan.learn()
    long = lan.a.send(lan.b.mac, b"x" * 1400)
    lan.b.receive()
    path = lan.switch.capture()
    for nic in (lan.a, lan.b, lan.c):
        nic.socket.close()
    frames = list(read(path))
    assert [frame.link for frame in frames if frame.direction == "inbound"] == ["a", "b", "c", "a"]
    outward = [frame.link for frame in frames if frame.direction == "outbound"]
    assert outward == ["b", "c", "a", "c", "a", "b", "b"]
    assert (frames[-1].frame, frames[-1].length) == (long[:256], 1414)
    assert all(abs(frame.at / 1e9 - time.time()) < 60 for frame in frames)
    lan.switch.close()
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_on_its_way_is_forgotten(lan: Lan) -> None:
    """Delayed by the cable, or kept for a machine that does not read."""
    lan.learn()
    b = lan.b.port
    b.to_machine = Faults(delay=0.2)
    lan.a.send(lan.b.mac, b"delayed")
    while not b.inward.pending:
        time.sleep(0.01)
    lan.switch.forget(b)
    assert b.inward.pending == 0
    b.to_machine = NONE
    sent = 0
    while not b.queue:
        lan.a.send(lan.b.mac, b"x" * 1400)
        sent += 1
    while lan.a.port.received < sent + 2:
        time.sleep(0.01)
    waiting = len(b.queue)
    lan.switch.forget(b)
    assert (len(b.queue), b.dropped) == (0, waiting + 1)
    for _ in range(sent - waiting):
        assert b"x" * 1400 in lan.b.receive()
    lan.a.send(lan.b.mac, b"after")
    assert lan.b.receive().endswith(b"after")
    assert lan.b.hears_nothing()
