"""Holding and attaching, over a console that is a pair of sockets."""

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.console import Console
from lab.errors import MisuseError
from lab.hold import attach, held, offered


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    assert tmp_path  # made where it always is, before that changes
    # Sockets' paths are short; pytest's own directories are not.
    with tempfile.TemporaryDirectory(prefix="h-") as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield Path(name)


def receive(line: socket.socket, until: bytes) -> bytes:
    told = b""
    while until not in told:
        told += line.recv(4096)
    return told


def test_who_attaches_sees_the_past_and_types(base: Path, tmp_path: Path) -> None:
    machine, ours = socket.socketpair()
    console = Console("one", ours, tmp_path / "log")
    machine.sendall(b"login: ")
    place = base / "lab-1-2-x"
    place.mkdir()
    with machine, offered(console, place / "one.attach"):
        assert list(held()) == ["one"]
        for word, tries in ((b"root", 9), (b"again", 40)):
            with socket.socket(socket.AF_UNIX) as person:
                person.settimeout(10)
                person.connect(str(place / "one.attach"))
                receive(person, b"login: ")
                person.sendall(word + b"\n")
                assert machine.recv(100) == word + b"\n"
                # Whoever else asks is told, however often, and waits for nobody.
                assert [list(held()) for _ in range(tries)] == [["one"]] * tries
                machine.sendall(b"you are " + word)
                receive(person, b"you are " + word)
    assert held() == {}
    assert os.listdir(place) == []
    console.close()


def test_two_of_one_name_are_told_apart(base: Path, tmp_path: Path) -> None:
    machine, ours = socket.socketpair()
    console = Console("one", ours, tmp_path / "log")
    first, second = base / "lab-11-1-x", base / "lab-22-1-x"
    first.mkdir()
    second.mkdir()
    with machine, offered(console, first / "one.attach"), offered(console, second / "one.attach"):
        assert list(held()) == ["one", "one@22"]
    console.close()


@pytest.mark.usefixtures("base")
def test_nobody_to_attach_to() -> None:
    with pytest.raises(MisuseError, match="there is: none"):
        attach("one")
