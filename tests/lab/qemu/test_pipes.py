"""A serial port's pipes: nothing is lost while nobody reads, and every end is noticed."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.qemu import pipes
from lab.qemu.pipes import Pipes


class Qemu:
    """Has the pipes open as QEMU has them: each for both ways."""

    def __init__(self, path: Path) -> None:
        self.takes, self.says = (os.open(f"{path}{end}", os.O_RDWR) for end in (".in", ".out"))

    def close(self) -> None:
        for each in (self.takes, self.says):
            os.close(each)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "console"


@pytest.fixture
def ours(path: Path) -> Iterator[Pipes]:
    with contextlib.closing(Pipes(path)) as made:
        yield made


def test_what_comes_byte_by_byte_waits_for_its_reader(ours: Pipes, path: Path) -> None:
    """More than a whole boot says; of a socket, 278 would be there."""
    with contextlib.closing(Qemu(path)) as qemu:
        said = bytes(range(256)) * 200
        for byte in said:
            os.write(qemu.says, bytes((byte,)))
        heard = b""
        while len(heard) < len(said):
            heard += ours.recv(65536)
    assert heard == said


def test_it_waits_until_qemu_has_come(ours: Pipes, path: Path) -> None:
    assert ours.connect() is None
    heard: list[bytes] = []
    reader = threading.Thread(target=lambda: heard.append(ours.recv(100)))
    reader.start()
    reader.join(0.1)
    assert reader.is_alive()
    with contextlib.closing(Qemu(path)) as qemu:
        assert ours.connect() is ours
        ours.unlink()
        assert list(path.parent.iterdir()) == []
        os.write(qemu.says, b"hello")
        reader.join(10)
        ours.sendall(b"typed")
        assert os.read(qemu.takes, 100) == b"typed"
    assert heard == [b"hello"]


def test_the_end_comes_after_the_last_words(ours: Pipes, path: Path) -> None:
    qemu = Qemu(path)
    ours.connect()
    os.write(qemu.says, b"bye")
    qemu.close()
    assert [ours.recv(100), ours.recv(100)] == [b"bye", b""]
    with pytest.raises(BrokenPipeError):
        ours.sendall(b"anybody?")
    ours.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        ours.sendall(b"anybody?")


def test_who_waits_can_be_let_go(ours: Pipes, path: Path) -> None:
    with contextlib.closing(Qemu(path)) as qemu:
        ours.connect()
        os.write(qemu.says, b"last")
        letting = [threading.Timer(0.1, ours.shutdown, [2]) for _ in range(4)]
        for timer in letting:
            timer.start()
        assert [ours.recv(100), ours.recv(100)] == [b"last", b""]
        for timer in letting:
            timer.join()


def test_who_types_to_a_machine_that_takes_nothing_is_told(
    ours: Pipes, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipes, "SEND_SECONDS", 0.1)
    with contextlib.closing(Qemu(path)):
        ours.connect()
        with pytest.raises(TimeoutError, match="nothing was taken"):
            ours.sendall(bytes(1 << 20))
