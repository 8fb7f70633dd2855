"""The host's side of a port, with a keeper that hands over a socket where the kernel would make a card."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import psutil
import pytest

from lab.errors import MisuseError, ProductError
from lab.net import hostport
from lab.net.hostport import HostPort
from lab.net.segment import Segment

MAC = b"\x52\x54\0\0\0\1"
ADDRESS = IPv4Interface("10.77.0.254/24")
FRAME = MAC * 2 + b"\x88\xb5" + b"payload"
#: Stands where `unshare` does: hands over one end of a socket and sends every frame back from the other.
ECHO = f"""#!{sys.executable} -I
import array, socket, sys, threading
words = sys.argv[sys.argv.index("-I") + 2 :]
control = socket.socket(fileno=int(words[0]))
here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
control.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [there.fileno()]))])
there.close()
def echo():
    while frame := here.recv(2048):
        here.send(frame[:14] + " ".join(words[1:]).encode())
threading.Thread(target=echo, daemon=True).start()
control.recv(1)
"""
Unshare = Callable[[str], None]


@pytest.fixture
def unshare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Unshare:
    """Puts a program in the place of `unshare`."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    def put(text: str) -> None:
        (tmp_path / "unshare").write_text(text)
        (tmp_path / "unshare").chmod(0o755)

    return put


def test_frames_go_there_and_come_back(unshare: Unshare) -> None:
    unshare(ECHO)
    came: list[bytes] = []
    port = HostPort("laptop", ADDRESS, MAC, IPv4Address("10.77.0.253"))
    port.send = came.append
    port.start()
    assert port(FRAME) == []
    deadline = time.monotonic() + 20
    while not came and time.monotonic() < deadline:
        time.sleep(0.01)
    assert came == [FRAME[:14] + b"52:54:00:00:00:01 10.77.0.254/24 10.77.0.253"]
    port.close()


def test_nothing_is_left_of_it(unshare: Unshare) -> None:
    unshare(ECHO)
    before = set(os.listdir("/proc/self/fd"))
    port = HostPort("laptop", ADDRESS, MAC, None)
    port.start()
    (keeper,) = (int(word.partition("=")[2]) for word in port.command() if word.startswith("--target="))
    os.kill(keeper, 0)
    port.close()
    with pytest.raises(ProcessLookupError):
        os.kill(keeper, 0)
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_keeper_that_is_killed_harms_nobody(unshare: Unshare) -> None:
    unshare(ECHO)
    port = HostPort("laptop", ADDRESS, MAC, None)
    port.start()
    (keeper,) = (int(word.partition("=")[2]) for word in port.command() if word.startswith("--target="))
    os.kill(keeper, signal.SIGKILL)
    os.waitid(os.P_PID, keeper, os.WEXITED | os.WNOWAIT)
    assert port(FRAME) == []
    port.close()


def test_a_host_that_refuses_says_why(unshare: Unshare, monkeypatch: pytest.MonkeyPatch) -> None:
    unshare("#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2\nexit 1\n")
    before = set(os.listdir("/proc/self/fd"))
    assert hostport.refusal().endswith("unshare failed: Operation not permitted")
    monkeypatch.setenv("PATH", "/nowhere")
    assert "no network namespace on this host" in hostport.refusal()
    assert set(os.listdir("/proc/self/fd")) == before


def test_no_rights_to_the_card_are_told(unshare: Unshare) -> None:
    # The keeper itself, outside of any namespace, with an address that none has.
    unshare('#!/bin/sh\nwhile [ "$1" != -I ]; do shift; done\nexec python3 "$1" "$2" "$3" x y z\n')
    assert "no card for the host's programs here" in hostport.refusal()


def test_a_program_that_fails_is_told_with_its_words(unshare: Unshare, tmp_path: Path) -> None:
    unshare(ECHO)
    (tmp_path / "nsenter").write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift\nexec "$@"\n')
    (tmp_path / "nsenter").chmod(0o755)
    port = HostPort("laptop", ADDRESS, MAC, None, factor=2)
    port.start()
    assert port.run("echo", "some words") == "some words\n"
    with pytest.raises(ProductError, match=r"sh -c 'echo no >&2; exit 3': exit status 3\nno"):
        port.run("sh", "-c", "echo no >&2; exit 3")
    with port.running("sh", "-c", "trap '' TERM; echo begun; exec sleep 60") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.kill()
    assert process.returncode is not None
    with pytest.raises(ProductError, match=r"still running after 0\.2 s"):
        port.run("sleep", "60", timeout=0.1)
    port.close()


def test_its_programs_die_with_a_runner_that_is_killed(unshare: Unshare, tmp_path: Path) -> None:
    unshare(ECHO)
    (tmp_path / "nsenter").write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift\nexec "$@"\n')
    (tmp_path / "nsenter").chmod(0o755)
    runner = f"""
from ipaddress import IPv4Interface
from lab.net.hostport import HostPort
port = HostPort("laptop", IPv4Interface("{ADDRESS}"), {MAC!r}, None)
port.start()
with port.running("sleep", "60") as program:
    port.run("sh", "-c", f"cd {tmp_path}; echo {{program.pid}} $$ >made; mv made pids; sleep 60")
"""
    process = subprocess.Popen([sys.executable, "-c", runner])
    deadline = time.monotonic() + 30
    while not (tmp_path / "pids").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    programs = [
        psutil.Process(int(pid))
        for pid in (tmp_path / "pids").read_text().split()
        if psutil.pid_exists(int(pid))
    ]
    _, alive = psutil.wait_procs(programs, timeout=5)
    for left in alive:
        left.kill()
    assert alive == []


def test_a_segment_plugs_it_in(unshare: Unshare, tmp_path: Path) -> None:
    unshare(ECHO)
    segment = Segment("lan", tmp_path, 0)
    segment.dhcp.options[3] = b"\x0a\x4d\0\xfe"
    port = segment.host_port("laptop", MAC)
    assert port.address == ADDRESS
    assert segment.link("laptop").received == 0
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(MisuseError, match="already"):
        segment.host_port("laptop", MAC)
    assert set(os.listdir("/proc/self/fd")) == before
    port.close()
    segment.switch.close()
