"""What systemd hands to `phase serve`: sockets, and a place to say that it is ready."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from phase.discovery.dht import Dht
from phase.provider import ProviderError, systemd
from tests.phase.provider.conftest import Publish

#: Starts a command as systemd does: with sockets from number 3 on, and word for whom they are.
_HAND_OVER = """
import fcntl, os, sys
numbers, command = sys.argv[1].split(), sys.argv[2:]
# Out of the way first: one of them may have a number that another one gets.
kept = [fcntl.fcntl(int(each), fcntl.F_DUPFD, 100) for each in numbers]
for number, each in enumerate(kept, 3):
    os.dup2(each, number)
os.environ["LISTEN_PID"], os.environ["LISTEN_FDS"] = str(os.getpid()), str(len(kept))
os.execv(command[0], command)
"""
_SERVE = [sys.executable, "-m", "phase", "serve", "--no-mdns"]


def test_systemd_is_told_and_its_sockets_used(publish: Publish, tmp_path: Path) -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_server(("127.0.0.1", 0)) as second,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram,
    ):
        port = listener.getsockname()[1]
        datagram.bind(("127.0.0.1", port))
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        sockets = (datagram, listener, second)
        numbers = [each.fileno() for each in sockets]
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _HAND_OVER,
                " ".join(map(str, numbers)),
                *_SERVE,
                "--artifacts",
                str(publish()),
            ],
            env=os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify")},
            pass_fds=numbers,
            stdout=subprocess.DEVNULL,
        )
        try:
            assert manager.recv(100) == b"READY=1"
            for each in (listener, second):
                url = f"http://127.0.0.1:{each.getsockname()[1]}/health"
                with urllib.request.urlopen(url, timeout=20) as answer:
                    assert answer.read().startswith(b'{"status":"ok"')
            assert asyncio.run(_node_answers(port))
        finally:
            process.terminate()
            process.wait(30)
        assert manager.recv(100) == b"STOPPING=1"


async def _node_answers(port: int) -> bool:
    asker = Dht(serves=False)
    await asker.start("127.0.0.1", 0)
    try:
        return await asker.reach([("127.0.0.1", port)]) == 1
    finally:
        asker.close()


def test_no_manager_is_no_trouble(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for place in ("", "relative", str(tmp_path / "nobody")):
        monkeypatch.setenv("NOTIFY_SOCKET", place)
        systemd.notify("READY=1")
    # Meant for another process.
    monkeypatch.setenv("LISTEN_PID", "1")
    assert systemd.inherited() is None


@pytest.mark.parametrize("count", ["0", "17", "-1", "1e1", "9" * 5000, "\u0663", ""])
def test_a_number_of_sockets_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, count: str) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", count)
    with pytest.raises(ProviderError, match=r"hands over .{1,10} sockets, expected 1 to 16"):
        systemd.inherited()


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        (["unix"], "neither TCP nor UDP and IPv4"),
        (["quiet"], "neither TCP nor UDP and IPv4"),
        (["tcp", "udp6"], "neither TCP nor UDP and IPv4"),
        (["udp"], "0 TCP and 1 UDP sockets"),
        (["tcp", "udp", "udp"], "1 TCP and 2 UDP sockets"),
        (["tcp", "udp"], r"UDP port \d+ beside TCP port"),
        (["tcp", "file"], "is not a socket"),
    ],
)
def test_sockets_that_cannot_be_used_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kinds: list[str], said: str
) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", str(len(kinds)))
    first = 200
    monkeypatch.setattr(systemd, "_FIRST_FD", first)
    for number, kind in enumerate(kinds, first):
        opened = os.open(tmp_path, os.O_RDONLY) if kind == "file" else _opened(kind, tmp_path).detach()
        os.dup2(opened, number)
        os.close(opened)
    try:
        with pytest.raises(ProviderError, match=said):
            systemd.inherited()
    finally:
        for number in range(first, first + len(kinds)):
            with contextlib.suppress(OSError):
                os.close(number)


def _opened(kind: str, directory: Path) -> socket.socket:
    """A socket of a kind."""
    if kind == "unix":
        made = socket.socket(socket.AF_UNIX)
        made.bind(str(directory / "listener"))
        made.listen()
        return made
    if kind == "udp6":
        return socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
    made.bind(("127.0.0.1", 0))
    if kind == "tcp":
        made.listen()
    return made
