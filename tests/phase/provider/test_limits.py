import asyncio
import contextlib
import errno
import json
import os
import socket
import ssl
from typing import Any

import pytest

from phase.provider import blobs, guard, limits, server
from phase.provider.limits import Limits, client_of
from tests.phase.provider.conftest import PathOf, Publish
from tests.phase.provider.running import ask, running


@pytest.mark.parametrize(
    ("address", "client"),
    [
        (("192.0.2.7", 4711), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 4711, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 4711, 0, 2), "fe80::/64"),
        (("::ffff:192.0.2.7", 4711, 0, 0), "192.0.2.7"),
        ("", "local"),
        (None, "local"),
    ],
)
def test_whom_a_connection_counts_for(address: object, client: str) -> None:
    assert client_of(address) == client


def test_counting() -> None:
    counted = Limits(connections=3, per_client=2)
    assert [counted.enter("a"), counted.enter("a"), counted.enter("a")] == [0, 0, 429]
    assert [counted.enter("b"), counted.enter("b")] == [0, 503]
    counted.leave("a")
    assert [counted.enter("a"), counted.enter("c")] == [0, 503]
    for client in ("a", "a", "b"):
        counted.leave(client)
    assert counted.enter("c") == 0
    assert counted.refused == {429: 1, 503: 2}


@pytest.mark.parametrize(("most", "each", "status"), [(2, 9, 503), (9, 2, 429)])
async def test_one_connection_too_many_is_told_so(
    publish: Publish, monkeypatch: pytest.MonkeyPatch, most: int, each: int, status: int
) -> None:
    monkeypatch.setattr(limits.Limits.__init__, "__defaults__", (most, each))
    async with running(publish()) as (port, _, _):
        first = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await ask(writer, "/health")
        head, _, body = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert b"Retry-After: 5" in head
        assert b"application/problem+json" in head
        assert json.loads(body)["status"] == status
        writer.close()
        # Those before it are served, and leave room when they go.
        for _, kept in first:
            await ask(kept, "/metrics")
        metrics = await asyncio.wait_for(first[0][0].readuntil(b"repository_ok "), 10)
        assert b'requests_total{route="none",status="%d"} 1' % status in metrics
        assert b"phase_provider_refused_too_many%s 1" % (b"_of_one" if status == 429 else b"") in metrics
        for _, kept in first:
            kept.close()
        for _ in range(100):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await ask(writer, "/health")
            answer = await asyncio.wait_for(reader.readline(), 10)
            writer.close()
            if b" 200 " in answer:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(answer)


async def test_one_too_many_that_asks_nothing_is_closed(
    publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits.Limits.__init__, "__defaults__", (0, 1))
    monkeypatch.setattr(guard, "REFUSED_SECONDS", 0.1)
    async with running(publish()) as (port, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


async def test_only_so_many_are_told_that_they_are_too_many(
    publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood of refused connections must not cost a descriptor each for as long as it may take to ask."""
    monkeypatch.setattr(limits.Limits.__init__, "__defaults__", (0, 1))
    monkeypatch.setattr(limits, "MAX_REFUSED", 1)
    async with running(publish()) as (port, _, _):
        held_reader, held = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.suppress(ConnectionError):
                await ask(writer, "/health")
                # They are told without being waited for.
                assert b" 503 " in await asyncio.wait_for(reader.read(), 1)
            writer.close()
        # The one that was there first is told all the same, and then there is room for the next.
        await ask(held, "/health")
        assert b" 503 " in await asyncio.wait_for(held_reader.read(), 10)
        held.close()
        for _ in range(100):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.suppress(ConnectionError):
                await ask(writer, "/health")
                if b" 503 " in await asyncio.wait_for(reader.read(), 10):
                    writer.close()
                    return
            writer.close()
            await asyncio.sleep(0.05)
        raise AssertionError("nobody is told any more")


async def test_connections_that_are_agreeing_on_tls_are_counted(
    publish: Publish, monkeypatch: pytest.MonkeyPatch, certificate: tuple[str, str]
) -> None:
    monkeypatch.setattr(server, "MAX_HANDSHAKES", 3)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    trusted = ssl.create_default_context(cafile=certificate[0])

    async def closed_at_once(port: int) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            return await asyncio.wait_for(reader.read(), 0.3) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        finally:
            writer.close()

    async with running(publish(), context) as (port, _, _):
        assert not await closed_at_once(port)
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        async with asyncio.timeout(10):
            while not await closed_at_once(port):
                pass
        for _, writer in silent:
            writer.close()
        async with asyncio.timeout(10):
            while await closed_at_once(port):
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)
        # There is room again; and those that are secured are no longer counted there.
        kept = []
        for _ in range(6):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusted)
            await ask(writer, "/health")
            assert b" 200 " in await asyncio.wait_for(reader.readline(), 10)
            kept.append(writer)
        for writer in kept:
            writer.close()


async def test_what_comes_with_the_end_of_the_handshake_is_not_lost(
    publish: Publish, certificate: tuple[str, str]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    async with running(publish(), context) as (port, _, _):
        ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
        trusted = ssl.create_default_context(cafile=certificate[0])
        client = trusted.wrap_bio(theirs, ours, server_hostname="127.0.0.1")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(ours.read())
                theirs.write(await asyncio.wait_for(reader.read(1 << 16), 10))
        # Last words of the handshake and the first request, in one segment.
        client.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        writer.write(ours.read())
        while True:
            try:
                answer = client.read()
                break
            except ssl.SSLWantReadError:
                theirs.write(await asyncio.wait_for(reader.read(1 << 16), 10))
        assert answer.startswith(b"HTTP/1.1 200 ")
        writer.close()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
async def test_no_descriptor_left_is_no_missing_file(
    publish: Publish, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    opened = os.open

    def full(path: Any, *more: Any, **named: Any) -> int:
        if len(str(path)) == 64:
            raise OSError(number, os.strerror(number))
        return opened(path, *more, **named)

    async with running(publish()) as (port, _, _):
        monkeypatch.setattr(os, "open", full)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await ask(writer, "/stable/x86_64/kernel")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 5" in head
        assert b"application/problem+json" in head
        writer.close()


@pytest.mark.parametrize(
    ("slice_seconds", "answer_seconds", "pause"),
    [(0.3, 60.0, None), (60.0, 0.5, 0.01)],
    ids=["stuck", "slow"],
)
async def test_a_reader_has_so_long_for_an_answer(
    publish: Publish,
    path_of: PathOf,
    monkeypatch: pytest.MonkeyPatch,
    slice_seconds: float,
    answer_seconds: float,
    pause: float | None,
) -> None:
    """One that takes nothing, and one that always takes something but would be at it for minutes."""
    monkeypatch.setattr(blobs, "SLICE", 1 << 16)
    monkeypatch.setattr(blobs, "SLICE_SECONDS", slice_seconds)
    monkeypatch.setattr(blobs, "ANSWER_SECONDS", answer_seconds)
    monkeypatch.setattr(blobs, "MIN_RATE", 1e9)
    whole = b"x" * (24 << 20)
    async with running(publish(kernel=whole, initramfs=b"i")) as (port, _, _):
        with socket.create_connection(("127.0.0.1", port)) as slow:
            slow.setblocking(False)
            loop = asyncio.get_running_loop()
            path = path_of("kernel", whole)
            await loop.sock_sendall(slow, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await loop.sock_recv(slow, 100)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            async with asyncio.timeout(20):
                text = ""
                while '",status="499"} 1' not in text:
                    if pause is not None:
                        with contextlib.suppress(ConnectionError):
                            await loop.sock_recv(slow, 20_000)
                    await asyncio.sleep(pause or 0.05)
                    await ask(writer, "/metrics")
                    text = (await reader.readuntil(b"repository_ok 1\n")).decode()
            writer.close()


async def test_a_reader_that_is_fast_enough_is_not_cut_off(
    publish: Publish, path_of: PathOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The longer the answer, the more time it has."""
    monkeypatch.setattr(blobs, "SLICE", 1 << 16)
    monkeypatch.setattr(blobs, "ANSWER_SECONDS", 0.0)
    whole = b"x" * (16 << 20)
    async with running(publish(kernel=whole, initramfs=b"i")) as (port, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
        await ask(writer, path_of("kernel", whole))
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(1.0)
        assert await asyncio.wait_for(reader.readexactly(len(whole)), 30) == whole
        writer.close()
