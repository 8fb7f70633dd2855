import asyncio
import contextlib
import gc
import json
import os
import re
import socket
import struct
import tracemalloc
from hashlib import sha256
from pathlib import Path

import pytest

from phase.provider import access, guard, server
from phase.provider.lines import LineWriter
from phase.provider.opened import KEEP_SECONDS, Opened
from phase.provider.plain import MAX_BODY, parse
from tests.phase.provider.conftest import FILES, Publish
from tests.phase.provider.running import ask, descriptors, running

BLOB = f"/blobs/sha256/{sha256(FILES['rootfs']).hexdigest()}"
PLAIN = b"GET /metadata/timestamp.json HTTP/1.1\r\nHost: x\r\n\r\n"


async def answer(port: int, request: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Status line, the other lines of the head but the date, and the body, of a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    if b"Connection: close" not in request:
        writer.write_eof()
    head, _, body = (await asyncio.wait_for(reader.read(), 20)).partition(b"\r\n\r\n")
    writer.close()
    status, *lines = head.split(b"\r\n")
    return status, sorted(line for line in lines if not line.startswith(b"Date: ")), body


@pytest.mark.parametrize("close", ["", "Connection: close\r\n", "connection:Keep-Alive\r\n"])
@pytest.mark.parametrize(
    ("path", "range_"),
    [
        ("/metadata/timestamp.json", ""),
        ("/metadata/9.root.json", ""),
        ("/metadata/1.stable-x86_64.json", "bytes=1-2"),
        (BLOB, ""),
        (BLOB, "bytes=0-0"),
        (BLOB, "bytes=1000-1999999"),
        (BLOB, "bytes=-10"),
        (BLOB, "bytes=5-"),
        (BLOB, "bytes=9999999-"),
        (BLOB, "bytes=0-1,5-6"),
        (BLOB, "lines=1-2"),
        (f"/blobs/sha256/{'0' * 64}", ""),
    ],
)
async def test_it_answers_as_aiohttp_does(publish: Publish, path: str, range_: str, close: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\n{close}" + (f"Range: {range_}\r\n" if range_ else "")
    # A field that a plain request has not.
    other = f"{request}X-Other: 1\r\n\r\n".encode()
    plain = f"{request}\r\n".encode()
    assert parse(plain) is not None
    assert parse(other) is None
    async with running(publish()) as (port, _, _):
        assert await answer(port, plain) == await answer(port, other)


@pytest.mark.parametrize(
    "request_",
    [
        PLAIN.replace(b"1.1", b"1.0"),
        PLAIN.replace(b"GET", b"HEAD"),
        PLAIN.replace(b"GET ", b"get "),
        PLAIN.replace(b"Host: x\r\n", b""),
        PLAIN.replace(b"Host: x", b"Host: "),
        PLAIN.replace(b"Host: x", b"Host: x y"),
        PLAIN.replace(b"Host: x\r\n", b"Host: x\r\nHost: y\r\n"),
        PLAIN.replace(b"Host: x\r\n", b"Host: x\r\n folded\r\n"),
        PLAIN.replace(b"Host: x\r\n", b"Host : x\r\n"),
        PLAIN.replace(b"Host: x\r\n", b"Host: x\n"),
        PLAIN.replace(b"Host: x\r\n", b"Host: x\r\nRange: bytes=0-1\r\nRange: bytes=2-3\r\n"),
        PLAIN.replace(b"Host: x\r\n", b"Host: x\r\nIf-None-Match: *\r\n"),
        PLAIN.replace(b"Host: x\r\n", b"Host: x\r\nContent-Length: 5\r\n"),
        PLAIN.replace(b"Host: x\r\n", b"Host: x\r\nTransfer-Encoding: chunked\r\n"),
        PLAIN.replace(b"Host: x\r\n", b"Host: x\r\nExpect: 100-continue\r\n"),
        PLAIN.replace(b"Host: x\r\n", b"Host: x\r\nConnection: upgrade\r\n"),
        PLAIN.replace(b"Host: x\r\n", b"Host: x\r\nUser-Agent: \x00\r\n"),
        PLAIN.replace(b"Host: x\r\n", b"Host: x\r\nUser-Agent: \xff\r\n"),
        PLAIN.replace(b"Host: x\r\n", b"Host: x\r\nAccept: " + b"x" * 300 + b"\r\n"),
        PLAIN.replace(b"Host: x\r\n", b"Host: x\r\n" + b"Accept: x\r\n" * 20),
        PLAIN.replace(b"timestamp.json", b"../metadata/timestamp.json"),
        PLAIN.replace(b"timestamp.json", b"timestamp%2ejson"),
        PLAIN.replace(b"timestamp.json", b"timestamp.json?x"),
        PLAIN.replace(b"/metadata", b"//metadata"),
        PLAIN.replace(b"/metadata/timestamp.json", BLOB.upper().encode()),
        PLAIN + PLAIN,
        PLAIN + b"x",
        PLAIN[:-2],
        b"\r\n" + PLAIN,
        b"",
    ],
)
def test_anything_else_is_for_aiohttp(request_: bytes) -> None:
    assert parse(PLAIN) is not None
    assert parse(request_) is None


async def read_one(reader: asyncio.StreamReader) -> bytes:
    """The body of the next answer."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
    length = int(re.findall(rb"Content-Length: (\d+)", head)[0])
    return await asyncio.wait_for(reader.readexactly(length), 20)


async def test_requests_that_come_during_an_answer_are_answered_in_turn(publish: Publish) -> None:
    kernel = os.urandom(1 << 20) * 24
    path = f"/blobs/sha256/{sha256(kernel).hexdigest()}"
    repository = publish(kernel=kernel, initramfs=b"i")
    timestamp = (repository / "metadata" / "timestamp.json").read_bytes()
    async with running(repository) as (port, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
        await ask(writer, path)
        for next_ in ("/metadata/timestamp.json", "/health", "/metadata/timestamp.json"):
            # Each by itself: the answer before is still under way.
            await asyncio.sleep(0.1)
            await ask(writer, next_)
        await asyncio.sleep(0.1)
        _, _, metrics = await answer(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b'route="/metadata/{file}"' not in metrics
        assert await read_one(reader) == kernel
        assert await read_one(reader) == timestamp
        assert (await read_one(reader)).startswith(b'{"status"')
        assert await read_one(reader) == timestamp
        writer.close()


async def test_a_flood_of_requests_during_an_answer_is_not_kept(publish: Publish) -> None:
    kernel = bytes(24 << 20)
    path = f"/blobs/sha256/{sha256(kernel).hexdigest()}"
    async with running(publish(kernel=kernel, initramfs=b"i")) as (port, _, _):
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
        await ask(writer, path)
        await asyncio.sleep(0.2)
        writer.write(PLAIN * 400_000)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await writer.drain()
        # 20 MB were offered; the sockets' buffers hold a part of it, the provider none.
        assert writer.transport.get_write_buffer_size() > 4 << 20
        writer.transport.abort()


def test_long_bytes_that_are_not_a_request_are_not_kept() -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(64):
            assert parse(PLAIN + b"%d" % number + bytes(1 << 18)) is None
        assert tracemalloc.get_traced_memory()[0] - before < 1 << 18
    finally:
        tracemalloc.stop()


async def test_long_bytes_on_a_connection_leave_little_memory(publish: Publish) -> None:
    async with running(publish()) as (port, _, _):
        await answer(port, PLAIN)
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            for _ in range(20):
                # The event loop does not run meanwhile, so as much waits as the kernel holds.
                with socket.create_connection(("127.0.0.1", port)) as client:
                    client.setblocking(False)
                    client.send(b" A" * 200_000)
                await asyncio.sleep(0.02)
            left = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
            gc.enable()
    assert left < 20 * 10 * server.RECEIVED_BYTES


@pytest.mark.parametrize("path", ["/metadata/timestamp.json", BLOB])
async def test_a_client_that_is_gone_before_it_is_accepted_is_logged(
    publish: Publish, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "access.log"
    monkeypatch.setattr(access._Place, "writer", LineWriter("access log", place=log, say=print))
    async with running(publish()) as (port, _, _):
        # The event loop does not run meanwhile.
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await asyncio.sleep(0.2)
        _, _, metrics = await answer(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    line = json.loads(log.read_text().splitlines()[0])
    assert (line["client"], line["path"]) == ("", path)
    assert b"task_failures_total{" not in metrics


async def test_a_document_never_pauses_its_transport() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(asyncio.Protocol, ours)
        assert transport.get_write_buffer_limits()[1] > MAX_BODY + 2048
        transport.abort()


async def test_a_damaged_blob_is_not_served(publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(server, "READ_SECONDS", 0.01)
    repository = publish()
    (repository / BLOB[1:]).write_bytes(bytes(len(FILES["rootfs"])))
    request = f"GET {BLOB} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    async with running(repository) as (port, _, _), asyncio.timeout(20):
        while not (found := await answer(port, request))[0].startswith(b"HTTP/1.1 500 "):
            await asyncio.sleep(0.05)
    assert b"damaged" in found[2]


async def test_a_blob_of_another_length_is_not_served(publish: Publish) -> None:
    repository = publish()
    os.truncate(repository / BLOB[1:], 5)
    async with running(repository) as (port, _, _):
        found = await answer(port, f"GET {BLOB} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert found[0].startswith(b"HTTP/1.1 500 ")
    assert b"has 5 bytes" in found[2]


async def test_a_slow_reader_that_has_ended_its_side_is_closed_after_its_answer(publish: Publish) -> None:
    kernel = bytes(24 << 20)
    path = f"/blobs/sha256/{sha256(kernel).hexdigest()}"
    async with running(publish(kernel=kernel, initramfs=b"i")) as (port, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
        await ask(writer, path)
        writer.write_eof()
        await asyncio.sleep(guard.LAST_WORDS_SECONDS + 0.3)
        assert await read_one(reader) == kernel
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()


async def test_readers_of_one_blob_share_a_descriptor(publish: Publish) -> None:
    kernel = bytes(24 << 20)
    name = sha256(kernel).hexdigest()
    repository = publish(kernel=kernel, initramfs=b"i")
    blob = repository / "blobs" / "sha256" / name
    async with running(repository) as (port, _, _):
        connections = [await asyncio.open_connection("127.0.0.1", port, limit=1 << 16) for _ in range(8)]
        for _, writer in connections:
            await ask(writer, f"/blobs/sha256/{name}")
        for reader, _ in connections:
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        assert 1 <= len(descriptors(blob)) <= 2
        for _, writer in connections:
            writer.transport.abort()
        await asyncio.sleep(KEEP_SECONDS + 0.5)
        assert not descriptors(blob)


async def test_a_blob_that_is_replaced_is_opened_anew(tmp_path: Path) -> None:
    blob = tmp_path / "blobs" / "sha256" / "00"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"old")
    opened = Opened(tmp_path)
    first = opened.take("00")
    blob.unlink()
    blob.write_bytes(b"newer")
    assert opened.take("00") is first
    opened.give_back(first)
    await asyncio.sleep(KEEP_SECONDS + 0.1)
    second = opened.take("00")
    assert (first.found.st_size, second.found.st_size) == (3, 5)
    assert os.pread(first.descriptor, 9, 0) == b"old"
    opened.give_back(first)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(first.descriptor)
    opened.close()
    os.fstat(second.descriptor)
    opened.give_back(second)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(second.descriptor)


async def test_a_blob_that_shrinks_is_cut_off(publish: Publish) -> None:
    kernel = bytes(24 << 20)
    name = sha256(kernel).hexdigest()
    repository = publish(kernel=kernel, initramfs=b"i")
    async with running(repository) as (port, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
        await ask(writer, f"/blobs/sha256/{name}")
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        os.truncate(repository / "blobs" / "sha256" / name, 1)
        got = 0
        with contextlib.suppress(ConnectionError):
            while data := await asyncio.wait_for(reader.read(1 << 20), 20):
                got += len(data)
        assert got < len(kernel)
        writer.close()
