"""No descriptors left: who asks is told so, the log stays small, and it heals."""

import asyncio
import contextlib
import errno
import os
import resource
import socket
import subprocess
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from phase.provider import accept
from phase.provider.accept import Acceptor
from phase.provider.background import Background
from phase.provider.metrics import Metrics
from tests.phase.provider.conftest import FILES, Publish
from tests.phase.provider.scarce import Scarce
from tests.phase.provider.service import COMMAND, get


@contextlib.contextmanager
def serving_with(descriptors: int, repository: Path, log: Path) -> Iterator[tuple[str, int]]:
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [*COMMAND, "--artifacts", str(repository), "--no-dht"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors)),
        )
    assert process.stdout is not None
    try:
        host, _, port = process.stdout.readline().rpartition("http://")[2].strip().partition(":")
        yield host, int(port)
    finally:
        process.terminate()
        with process.stdout:
            process.wait(30)


def ask(host: str, port: int) -> bytes:
    with socket.create_connection((host, port), timeout=10) as asking:
        asking.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return asking.recv(1000)


@pytest.mark.parametrize(("descriptors", "idle"), [(90, 150), (64, 300)])
def test_no_descriptors_left(publish: Publish, tmp_path: Path, descriptors: int, idle: int) -> None:
    path = f"/blobs/sha256/{sha256(FILES['kernel']).hexdigest()}"
    with (
        serving_with(descriptors, publish(), tmp_path / "log") as (host, port),
        socket.create_connection((host, port), timeout=10) as kept,
    ):
        crowd = [socket.create_connection((host, port), timeout=10) for _ in range(idle)]
        # Whoever is not served is told so.
        assert ask(host, port).startswith((b"HTTP/1.1 503 ", b"HTTP/1.1 429 "))
        assert b"Retry-After: 5" in ask(host, port)
        # Who was there before is served, files too.
        kept.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert kept.recv(1000).startswith(b"HTTP/1.1 200 ")
        for each in crowd:
            each.close()
        until = time.monotonic() + 10
        while not (answer := ask(host, port)).startswith(b"HTTP/1.1 200 "):
            assert time.monotonic() < until, answer
            time.sleep(0.05)
        assert b"phase_provider_refused" in get(f"http://{host}:{port}/metrics")
    text = (tmp_path / "log").read_text()
    assert "Traceback" not in text
    assert len(text) < 5000


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EPERM])
async def test_every_kind_of_exhaustion_is_told_and_heals(
    number: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accept, "PAUSE_SECONDS", 0.02)
    real = socket.create_server(("127.0.0.1", 0))
    scarce = Scarce(real, number)
    tasks, metrics = Background(), Metrics()
    made: list[asyncio.Protocol] = []

    def protocol(_: socket.socket) -> asyncio.Protocol:
        made.append(asyncio.Protocol())
        return made[-1]

    acceptor = Acceptor(scarce, protocol, tasks, metrics)  # type: ignore[arg-type]  # a socket in all but name
    acceptor.start()
    try:
        scarce.refuse = 1
        reader, writer = await asyncio.open_connection(*real.getsockname())
        if number == errno.EPERM:
            # A firewall: the connection waits, and is taken at the next try.
            async with asyncio.timeout(5):
                while not made:
                    await asyncio.sleep(0.01)
            assert not acceptor.problems()
        else:
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 503 ")
            assert metrics.exhausted == 1
            assert os.strerror(number) in acceptor.problems()[0].text
        assert len(caplog.records) == 1
        writer.close()
        # Not even the reserve helps, for a while.
        scarce.refuse = 3
        _, writer = await asyncio.open_connection(*real.getsockname())
        before = len(made)
        async with asyncio.timeout(5):
            while len(made) == before and metrics.exhausted < 2:
                await asyncio.sleep(0.01)
        writer.close()
        assert len(caplog.records) == 1, "one line a second"
    finally:
        acceptor.stop()
        await tasks.stop(1)
    assert acceptor._reserve < 0


def test_capacity_leaves_a_file_and_a_wait_for_each_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, wanted in ((90, 14), (1024, 325), (10, 4), (resource.RLIM_INFINITY, 1 << 20)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert accept.capacity() == wanted
