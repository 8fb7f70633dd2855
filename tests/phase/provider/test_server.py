import asyncio
import json
import signal
import socket
import ssl
import sys
from pathlib import Path

import aiohttp
import pytest

from phase.provider import ProviderError, guard, serve
from phase.provider.server import UNSENT_BYTES
from phase.release.local import LocalRepository
from tests.phase.provider.conftest import FILES, PathOf, Publish
from tests.phase.provider.running import ask, running


async def test_a_connection_that_asks_nothing_is_closed(
    publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "HEAD_SECONDS", 0.2)
    async with running(publish()) as (port, _, _):
        for begin in (b"", b"GET / HTTP/1.1\r\nHost:"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(begin)
            assert await asyncio.wait_for(reader.read(), 10) == b""
            writer.close()


async def test_a_connection_that_never_secures_itself_is_closed(
    publish: Publish, monkeypatch: pytest.MonkeyPatch, certificate: tuple[str, str]
) -> None:
    monkeypatch.setattr(guard, "HEAD_SECONDS", 0.2)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    async with running(publish(), context) as (port, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


async def test_a_head_drop_by_drop_is_cut_off(publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "HEAD_SECONDS", 0.3)
    async with running(publish()) as (port, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await ask(writer, "/health")
        assert b"200 OK" in await reader.readline()
        await reader.readuntil(b"}")
        writer.write(b"GET / HTTP/1.1\r\nX: ")
        end = asyncio.ensure_future(reader.read())
        for _ in range(200):
            writer.write(b"y")
            if (await asyncio.wait([end], timeout=0.05))[0]:
                break
        # Ten seconds of drops it would have been; either way of closing is one.
        assert end.done()
        assert isinstance(end.exception(), ConnectionError) or end.result() == b""
        writer.close()


async def test_an_idle_connection_is_closed(publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "IDLE_SECONDS", 0.2)
    async with running(publish()) as (port, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            await ask(writer, "/health")
            assert b"200 OK" in await reader.readuntil(b"}")
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


async def test_what_was_begun_is_finished(publish: Publish, path_of: PathOf) -> None:
    # More than the sockets' buffers hold, so that the answer is under way for sure.
    rootfs = b"x" * (24 << 20)
    async with running(publish(kernel=b"k", initramfs=b"i", rootfs=rootfs)) as (port, stop, task):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
        await ask(writer, path_of("rootfs", rootfs))
        await reader.readuntil(b"\r\n\r\n")
        stop.set()
        await asyncio.sleep(0.2)
        assert not task.done()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        assert await reader.readexactly(len(rootfs)) == rootfs
        await asyncio.wait_for(task, 10)
        writer.close()


async def test_a_reader_that_leaves_harms_nobody(
    publish: Publish, path_of: PathOf, caplog: pytest.LogCaptureFixture
) -> None:
    rootfs = b"x" * (24 << 20)
    async with running(publish(kernel=b"k", initramfs=b"i", rootfs=rootfs)) as (port, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await ask(writer, path_of("rootfs", rootfs))
        await reader.readexactly(1000)
        writer.transport.abort()
        for _ in range(100):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await ask(writer, "/metrics")
            text = (await reader.readuntil(b"uptime_seconds ")).decode()
            writer.close()
            if 'status="499"} 1' in text:
                break
            await asyncio.sleep(0.05)
        route = "/{channel}/{arch}/{artifact}" if "stable" in path_of("", b"") else "/blobs/sha256/{hex}"
        assert f'route="{route}",status="499"}} 1' in text
    assert not caplog.records, "anybody could fill the log by leaving"


def unsent(port: int) -> int:
    """Bytes that the kernel holds for the one reader of a port of 127.0.0.1 (proc_net_tcp.txt: tx_queue)."""
    local = f"0100007F:{port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    (held,) = [fields[4] for fields in lines if fields[1] == local and fields[3] == "01"]
    return int(held.partition(":")[0], 16)


async def test_a_reader_that_does_not_read_holds_little_of_the_kernels_memory(
    publish: Publish, path_of: PathOf
) -> None:
    kernel = bytes(16 << 20)
    repository = publish(kernel=kernel, initramfs=b"i")
    async with running(repository) as (port, _, _):
        with socket.socket() as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(("127.0.0.1", port))
            reader.sendall(f"GET {path_of('kernel', kernel)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            held = -1
            while held != (now := unsent(port)) or not now:
                held = now
                await asyncio.sleep(0.3)
    # What fills the low-water mark may pass it by one write of the kernel's.
    assert 0 < held < 2 * UNSENT_BYTES


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\0\xff\r\n\r\n", b"GET / HTTP/1.1\r\nHost\r\n\r\n", b"GET / HTTP/9\r\n\r\n"]
)
async def test_what_is_no_request_is_answered_and_not_logged(
    publish: Publish, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    async with running(publish(kernel=b"k")) as (port, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        head, _, body = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.0 400 ")
        assert b"application/problem+json" in head
        assert json.loads(body)["detail"].startswith("this is not a request: ")
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await ask(writer, "/metrics")
        text = await asyncio.wait_for(reader.readuntil(b"repository_ok "), 10)
        assert b'requests_total{route="none",status="400"} 1' in text
        writer.close()
    assert not caplog.records


HALF = b"POST /health HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        HALF + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\n|abc",
        HALF + b"Content-Encoding: deflate\r\nTransfer-Encoding: chunked\r\n\r\n|3\r\nabc\r\n0\r\n\r\n",
        HALF + b"Transfer-Encoding: chunked\r\n\r\n|zz\r\n",
        HALF + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n|fffffffffffffffff\r\n",
    ],
)
async def test_a_body_that_is_no_http_is_not_logged(
    publish: Publish, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    """The head is answered before the rest of the body comes."""
    async with running(publish(kernel=b"k")) as (port, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head, _, rest = sent.partition(b"|")
        writer.write(head)
        assert b" 405 " in await asyncio.wait_for(reader.readline(), 10)
        writer.write(rest)
        writer.write_eof()
        await asyncio.wait_for(reader.read(), 10)
        writer.close()
    assert not [record.message for record in caplog.records]


async def test_a_client_that_ends_its_side_gets_its_answer(publish: Publish, path_of: PathOf) -> None:
    """`nc -N` and `socat` do so, and read until the end."""
    kernel = bytes(range(256)) * 40_000
    async with running(publish(kernel=kernel)) as (port, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path_of('kernel', kernel)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        writer.write_eof()
        _, _, body = (await asyncio.wait_for(reader.read(), 20)).partition(b"\r\n\r\n")
        assert body == kernel
        writer.close()
        # Half a head is not waited for.
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HT")
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


async def test_a_port_that_is_taken(publish: Publish) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ProviderError, match=f"cannot listen on 127.0.0.1 port {port}"):
            await serve(publish(), bind="127.0.0.1", port=port, mdns=False)


async def test_the_command_serves_until_sigterm(publish: Publish) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "phase", "serve", "--artifacts", str(publish()), "--bind", "127.0.0.1",
        "--port", "0", "--no-mdns", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
    port = int(line.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await ask(writer, "/stable/x86_64/kernel")
    await reader.readuntil(b"\r\n\r\n")
    assert await reader.readexactly(len(FILES["kernel"])) == FILES["kernel"]
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 30) == 0
    writer.close()


async def test_a_local_repository_is_kept_up_while_it_is_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What changes below it is signed and served with no restart; what cannot be signed stops nothing."""
    source = tmp_path / "artifacts/stable/x86_64"
    source.mkdir(parents=True)
    (source / "kernel").write_bytes(b"first")
    local = LocalRepository(tmp_path / "artifacts", tmp_path / "state", "stable", "x86_64")
    local.refresh()
    stop = asyncio.Event()
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    serving = serve(
        local.directory,
        bind="127.0.0.1",
        port=0,
        mdns=False,
        ready=port.set_result,
        stop=stop,
        upkeep=local.keep_up,
        every=0.05,
    )
    task = asyncio.create_task(serving)

    async def served(wanted: bytes) -> None:
        async with asyncio.timeout(60), aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{await port}/stable/x86_64/kernel"
            while True:
                async with session.get(url) as answer:
                    if await answer.read() == wanted:
                        return
                await asyncio.sleep(0.05)

    try:
        await served(b"first")
        (source / "kernel").write_bytes(b"second")
        await served(b"second")
        (source / "kernel").unlink()
        async with asyncio.timeout(60):
            while "no kernel in" not in caplog.text:
                await asyncio.sleep(0.05)
        await served(b"second")
        await asyncio.sleep(0.5)
        assert caplog.text.count("no kernel in") == 1, "said once, not at every look"
    finally:
        stop.set()
        await task
