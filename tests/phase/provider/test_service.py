"""`phase serve` as a service: as a process, with what systemd gives it, and what it leaves."""

import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest

from phase.arch import canonical
from phase.provider.limits import MAX_PER_CLIENT
from tests.phase.provider.conftest import FILES, Publish
from tests.phase.provider.service import COMMAND, get, serving

_BLOB = f"/blobs/sha256/{sha256(FILES['rootfs']).hexdigest()}"


def test_each_request_is_logged_as_json(publish: Publish, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with serving(publish(), "--access-log", str(log)) as (url, _):
        get(f"{url}{_BLOB}", {"Range": "bytes=5-9", "User-Agent": 'one "two"'})
        with contextlib.suppress(OSError):
            get(f"{url}/none")
        # As logrotate does.
        log.rename(tmp_path / "rotated")
        get(f"{url}/health")
    first, second = [json.loads(line) for line in (tmp_path / "rotated").read_text().splitlines()]
    assert {**first, "time": "", "seconds": 0} == {
        "time": "",
        "client": "127.0.0.1",
        "method": "GET",
        "path": _BLOB,
        "status": 206,
        "bytes": 5,
        "seconds": 0,
        "range": "bytes=5-9",
        "agent": 'one "two"',
    }
    assert (second["path"], second["status"]) == ("/none", 404)
    assert json.loads(log.read_text())["path"] == "/health"


def test_what_is_turned_away_is_logged_but_cannot_flood_the_log(publish: Publish, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with serving(publish(), "--access-log", str(log)) as (url, _):
        host, port = url.removeprefix("http://").split(":")

        def send(what: bytes) -> bytes:
            with socket.create_connection((host, int(port)), timeout=20) as stranger:
                stranger.sendall(what)
                return stranger.recv(100)

        for _ in range(40):
            assert send(b"nonsense\r\n\r\n").startswith(b"HTTP/1.0 400 ")
        time.sleep(1.1)
        crowd = [socket.create_connection((host, int(port)), timeout=20) for _ in range(MAX_PER_CLIENT)]
        assert send(b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 429 ")
        for each in crowd:
            each.close()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert (lines[0]["client"], lines[0]["status"], lines[0]["path"]) == ("127.0.0.1", 400, "")
    assert lines[0]["bytes"] > 0
    assert lines[-1]["status"] == 429
    assert sum(1 + line.get("left_out", 0) for line in lines) == 41
    # Ten for each second that the forty took.
    assert len(lines) < 40


def test_a_log_that_cannot_be_written(publish: Publish, tmp_path: Path) -> None:
    command = [*COMMAND, "--artifacts", str(publish()), "--access-log", str(tmp_path / "no" / "log")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "cannot be written: No such file" in done.stderr


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_the_architecture_decides_what_the_manifest_is(publish: Publish, arch: str) -> None:
    publish()
    with serving(publish(arch="arm64"), "--arch", arch) as (url, _):
        found = json.loads(get(f"{url}/manifest.json"))
    assert found["signed"]["x-phase"]["arch"] == canonical(arch)


def test_several_processes_share_one_port(publish: Publish) -> None:
    with serving(publish(), "--processes", "3") as (url, process):
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 3
        for _ in range(12):
            assert get(f"{url}{_BLOB}") == FILES["rootfs"]
    assert process.returncode == 0
    assert not any(Path("/proc", child).exists() for child in children)


def children_of(process: "subprocess.Popen[str]") -> list[int]:
    return [int(c) for c in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def test_a_worker_dies_and_is_started_anew(publish: Publish) -> None:
    with serving(publish(), "--processes", "2") as (url, process):
        before = children_of(process)
        for _ in range(4):
            get(f"{url}{_BLOB}")
        time.sleep(0.3)  # they have told how many
        os.kill(before[1], signal.SIGKILL)
        until = time.monotonic() + 20
        while len(now := children_of(process)) != 2 or now == before:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert get(f"{url}{_BLOB}") == FILES["rootfs"]
        text = ""
        while "phase_provider_workers 2\n" not in text:
            assert time.monotonic() < until, text
            text = get(f"{url}/metrics").decode()
        assert "phase_provider_worker_restarts_total 1\n" in text
        # What the dead one had counted is counted on.
        assert sum(int(n) for n in re.findall(r'hex}",status="200"} (\d+)', text)) >= 4
    assert process.returncode == 0


def test_workers_that_die_again_and_again_are_a_failure() -> None:
    program = """
import logging, os, signal, time
from phase.provider import workers

logging.basicConfig()
workers.RETRY_SECONDS = (0.01, 0.02)

def work(number):
    if number:
        os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(60)

workers.run(2, work)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert (
        "worker 1 ended 5 times in a row within 10 s of its start, the last time by signal 11" in done.stderr
    )
    assert done.stderr.count("it is started anew in") == 4


def test_a_worker_that_cannot_be_started_anew_is_tried_again_while_the_other_serves() -> None:
    """No memory and no process left is told to fork(2), for a moment; the first workers get theirs."""
    program = """
import errno, logging, os, signal, time
from phase.provider import workers

logging.basicConfig()
workers.RETRY_SECONDS = (0.01, 0.02)
fork, forks = os.fork, []
serving, tell = os.pipe()

def scarce():
    forks.append(1)
    if 2 < len(forks) < 6:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()

def work(number):
    if number and len(forks) < 6:
        os.read(serving, 1)
        os.kill(os.getpid(), signal.SIGKILL)
    elif number:
        os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(60)

os.fork = scarce
workers.run(2, work, ready=lambda: os.write(tell, b"x"))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("and cannot be started: Resource temporarily unavailable; it is started") == 3


def test_workers_that_cannot_be_started_at_first_are_a_failure() -> None:
    program = """
import os
from phase.provider import workers

def refuse():
    raise OSError(12, os.strerror(12))

os.fork = refuse
workers.run(2, print)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert "ProviderError: worker 0 cannot be started: Cannot allocate memory" in done.stderr


def test_without_the_first_of_its_processes_the_others_end(publish: Publish) -> None:
    with serving(publish(), "--processes", "3") as (url, process):
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
        process.wait(30)
        until = time.monotonic() + 20
        while left := [child for child in children if Path("/proc", child).exists()]:
            if time.monotonic() > until:
                for child in left:
                    os.kill(int(child), signal.SIGKILL)
                pytest.fail("orphans go on serving")
            time.sleep(0.05)
        host, port = url.removeprefix("http://").split(":")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)), timeout=5)


@pytest.mark.parametrize("which", ["before its work has begun", "while it begins"])
def test_told_to_end_at_its_very_start_it_leaves_nobody(which: str) -> None:
    """The loop listens for SIGTERM only once it runs."""
    begin = "os.kill(os.getppid(), signal.SIGTERM) if number == 0 else time.sleep(60)"
    if which == "while it begins":
        begin = f"asyncio.run(later(lambda: {begin}))"
    program = f"""
import asyncio, os, signal, time
from phase.provider import workers

async def later(what):
    what()

def work(number):
    os.write(1, b"%d\\n" % os.getpid())
    {begin}

workers.run(3, work)
"""
    process = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, timeout=60, check=False
    )
    assert process.returncode == 0
    children = process.stdout.split()
    assert children
    assert not any(Path("/proc", child).exists() for child in children)


def test_new_files_that_nobody_signed_are_picked_up(tmp_path: Path) -> None:
    source = tmp_path / "artifacts/stable/x86_64"
    source.mkdir(parents=True)
    (source / "kernel").write_bytes(b"first")
    more = ("--arch", "x86_64", "--state", str(tmp_path / "state"))
    with serving(tmp_path / "artifacts", *more) as (url, _):
        assert get(f"{url}/stable/x86_64/kernel") == b"first"
        (source / "kernel").write_bytes(b"second")
        until = time.monotonic() + 30
        while get(f"{url}/stable/x86_64/kernel") != b"second":
            assert time.monotonic() < until
            time.sleep(0.2)


def test_tls(publish: Publish, certificate: tuple[str, str]) -> None:
    with serving(publish(), "--tls", *certificate) as (url, _):
        assert url.startswith("https://")
        trusted = ssl.create_default_context(cafile=certificate[0])
        assert get(f"{url}{_BLOB}", context=trusted) == FILES["rootfs"]
        assert get(f"{url}{_BLOB}", {"Range": "bytes=-4"}, trusted) == FILES["rootfs"][-4:]


def test_a_key_that_is_none(publish: Publish, certificate: tuple[str, str]) -> None:
    command = [*COMMAND, "--artifacts", str(publish()), "--tls", certificate[0], certificate[0]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "are not a certificate and its key" in done.stderr


def test_a_drain_ends_with_the_answers_under_way(publish: Publish) -> None:
    big = bytes(range(256)) * (40 << 12)
    path = f"/blobs/sha256/{sha256(big).hexdigest()}"
    with serving(publish(kernel=big, initramfs=b"i")) as (url, process):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as reader:
            reader.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            got = reader.recv(1000)
            process.terminate()
            time.sleep(0.3)
            while block := reader.recv(1 << 20):
                got += block
        assert sha256(got.partition(b"\r\n\r\n")[2]).hexdigest() == path.rpartition("/")[2]
        process.wait(30)
    assert process.returncode == 0


def test_all_processes_stop_listening_at_once(publish: Publish) -> None:
    big = bytes(range(256)) * (40 << 12)
    path = f"/blobs/sha256/{sha256(big).hexdigest()}"
    with serving(publish(kernel=big, initramfs=b"i"), "--processes", "2") as (url, process):
        host, port = url.removeprefix("http://").split(":")
        # The kernel chooses who accepts: some of these reach each process, and hold it while it drains.
        readers = [socket.create_connection((host, int(port)), timeout=30) for _ in range(16)]
        for reader in readers:
            reader.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            assert reader.recv(1)
        process.terminate()
        until = time.monotonic() + 20
        with contextlib.suppress(ConnectionRefusedError):
            while time.monotonic() < until:
                socket.create_connection((host, int(port)), timeout=1).close()
                time.sleep(0.05)
            pytest.fail("a process still accepts while another one ends")
        for reader in readers:
            left = 0
            while block := reader.recv(1 << 20):
                left += len(block)
            assert left > len(big)
            reader.close()
        process.wait(30)
    assert process.returncode == 0
