"""Clients of the gateway that leave, or read nothing: no fault of the node, and no second answer."""

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from phase.node import gateway, requests
from tests.phase.node.conftest import CLIENT, FLOOD, NODE, Start, wasm
from tests.phase.node.gate import Http, http


@asynccontextmanager
async def _asked(client: Http, method: str, target: str, *more: str) -> AsyncIterator[asyncio.StreamReader]:
    """A signed request on a connection of its own, whose reader holds little."""
    host, port = client.url.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    # It leaves with a reset, as one does that is killed: a mere end may be of one that still reads.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=connection, limit=1 << 10)
    signed = requests.sign(CLIENT, method, target, node=NODE.public_key)
    fields = [f"{name}: {value}" for name, value in signed.items()]
    writer.write("\r\n".join([f"{method} {target} HTTP/1.1", "Host: x", *fields, *more, "", ""]).encode())
    try:
        yield reader
    finally:
        writer.transport.abort()


async def _flood(client: Http) -> str:
    """The output of a job that prints 64 MiB."""
    job = await client.job(wasm(FLOOD), limits={"output_bytes": 1 << 26, "wall_seconds": 20.0})
    return f"/v1/jobs/{job}/stdout"


async def _refusals(client: Http, closed: int) -> object:
    """What the node has refused, once it has no more connections than these."""
    async with asyncio.timeout(20):
        while True:
            status = (await client.send("GET", "/status", b"", {})).json
            metrics = (await client.send("GET", "/metrics", b"", {})).body.decode()
            if f"phase_node_http_connections {closed}\n" in metrics:
                return status["refusals"]
            await asyncio.sleep(0.01)


def _faults(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]


async def test_a_client_that_leaves_in_the_middle_is_no_fault(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async with start() as scene, http(scene) as client:
        async with _asked(client, "GET", await _flood(client)) as reader:
            await reader.readexactly(1000)
        length = f"Content-Length: {1 << 20}"
        async with _asked(client, "POST", "/v1/jobs", length) as reader:
            with pytest.raises(TimeoutError):  # the node waits for the body
                await asyncio.wait_for(reader.read(1), 0.1)
        assert await _refusals(client, 1) == {}
    assert _faults(caplog) == []


async def test_a_client_that_reads_nothing_gets_no_second_answer(
    start: Start, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "_SEND_SECONDS", 0.2)
    data = bytearray()
    async with start() as scene, http(scene) as client:
        target = await _flood(client)
        async with _asked(client, "GET", target) as reader:
            assert await _refusals(client, 1) == {}
            with contextlib.suppress(ConnectionResetError):
                while part := await reader.read(1 << 16):
                    data += part
    assert (data.count(b"HTTP/1.1"), data.startswith(b"HTTP/1.1 200")) == (1, True)
    assert not data.endswith(b"0\r\n\r\n")
    assert _faults(caplog) == []


async def test_output_that_cannot_be_read_breaks_off(
    start: Start, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with start() as scene, http(scene) as client:
        target = await _flood(client)
        kept = scene.daemon.scheduler.kept
        # The answer has begun when the read fails.
        monkeypatch.setattr(kept, "output", lambda *_: os.open(tmp_path, os.O_RDONLY))
        with pytest.raises(aiohttp.ClientError):
            await client.call("GET", target)
    (fault,) = _faults(caplog)
    assert "broke off" in fault
