"""The end of a provider: within the time that the documentation gives, whoever is connected."""

import asyncio
import contextlib
import re
import signal
import socket
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest

from phase.cli import serve as serve_command
from phase.provider import server, workers
from tests.phase.provider.conftest import Publish
from tests.phase.provider.running import descriptors, running
from tests.phase.provider.service import serving

BIG = bytes(range(256)) * (40 << 12)
_BIG_PATH = f"/blobs/sha256/{sha256(BIG).hexdigest()}"
_SLOW = f"GET {_BIG_PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def test_what_the_documentation_says_is_what_the_code_does() -> None:
    project = Path(__file__).parents[3]
    text = (project / "docs/use/serving.md").read_text()
    (stop,) = map(
        int, re.findall(r"TimeoutStopSec=(\d+)", (project / "debian/phase.phase-serve.service").read_text())
    )
    assert 10 <= stop <= 30
    assert f"for up to {server.DRAIN_SECONDS:.0f} s" in text
    assert f"It ends within {stop} s" in text
    assert server.DRAIN_SECONDS + 2 < serve_command.END_SECONDS < workers.END_SECONDS < stop


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost:",
        b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf",
        b"\x16\x03\x01",
    ],
    ids=["silent", "half a head", "kept open", "a websocket", "half a body", "TLS to plain"],
)
async def test_who_asks_nothing_does_not_hold_up_the_end(publish: Publish, sent: bytes) -> None:
    async with running(publish()) as (port, stop, task):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        await asyncio.sleep(0.1)
        begun = time.monotonic()
        stop.set()
        await asyncio.wait_for(asyncio.shield(task), 5)
        assert time.monotonic() - begun < 3
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(reader.read(), 5)
        writer.close()


async def test_a_reader_that_does_not_read_is_cut_off_after_the_drain(
    publish: Publish, caplog: pytest.LogCaptureFixture
) -> None:
    repository = publish(kernel=BIG, initramfs=b"i")
    stop = asyncio.Event()
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    serving = server.serve(
        repository,
        bind="127.0.0.1",
        port=0,
        mdns=False,
        ready=port.set_result,
        stop=stop,
        drain=0.7,
    )
    task = asyncio.create_task(serving)
    with socket.create_connection(("127.0.0.1", await port)) as slow:
        slow.sendall(_SLOW)
        await asyncio.sleep(0.2)
        begun = time.monotonic()
        stop.set()
        await asyncio.wait_for(task, 10)
        assert 0.6 < time.monotonic() - begun < 3
    assert [record.getMessage() for record in caplog.records] == ["1 answers were not finished"]
    assert not descriptors(repository / _BIG_PATH[1:])


@pytest.mark.parametrize(("number", "processes"), [(signal.SIGINT, "1"), (signal.SIGTERM, "2")])
def test_a_second_signal_ends_it_at_once(publish: Publish, number: signal.Signals, processes: str) -> None:
    with serving(publish(kernel=BIG, initramfs=b"i"), "--processes", processes) as (url, process):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as slow:
            slow.sendall(_SLOW)
            assert slow.recv(1)
            begun = time.monotonic()
            process.send_signal(number)
            process.send_signal(number)  # as `timeout` does
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1.0)
            process.send_signal(number)
            assert process.wait(10) == 0
            assert time.monotonic() - begun < 6


def test_it_stops_while_upkeep_hangs(tmp_path: Path) -> None:
    """In the middle of signing, or at a file system that does not answer."""
    source = tmp_path / "artifacts/stable/x86_64"
    source.mkdir(parents=True)
    (source / "kernel").write_bytes(b"first")
    program = f"""
import os, time
from phase.release.local import LocalRepository
# Not by print: a thread that has the lock of stdout when Python ends makes it abort.
LocalRepository.keep_up = lambda self: os.write(1, b"at it\\n") and time.sleep(1000)
from phase.cli.serve import command
command(["--artifacts", {str(tmp_path / "artifacts")!r}, "--state", {str(tmp_path / "state")!r}, "--bind",
    "127.0.0.1", "--port", "0", "--no-mdns", "--no-dht", "--arch", "x86_64"])
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
        assert process.stdout.readline() == "at it\n"
        process.terminate()
        assert process.wait(10) == 0


def test_an_end_that_is_held_up_is_forced() -> None:
    program = """
import time
from phase.cli import serve
serve.END_SECONDS = 0.2
serve.log_to_stderr()
serve.end_in_time()
time.sleep(60)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert "this process does not end within" in done.stderr


def test_workers_that_do_not_end_are_killed_and_it_is_a_failure() -> None:
    program = """
import logging, os, signal, time
from phase.provider import workers

logging.basicConfig()
workers.END_SECONDS = 0.5

def work(number):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)

workers.run(2, work, ready=lambda: (time.sleep(0.3), os.kill(os.getpid(), signal.SIGTERM)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert "they are killed" in done.stderr
    assert "not all workers ended well: worker" in done.stderr
    assert done.stderr.count("ended by signal 9") == 2
