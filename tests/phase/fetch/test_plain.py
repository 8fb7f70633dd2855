"""Plain web servers: without ranges, without lengths, in chunks, by HTTP/1.0; alone and together."""

import contextlib
import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest
from click.testing import CliRunner

from fixtures import plain
from fixtures.hostile.trial import peak
from phase.cli import cli
from phase.fetch import ExhaustedError, FetchReport, VerificationError, fetch_artifact
from phase.release import export
from phase.release.keys import ReleaseKeys
from phase.release.repository import Repository
from tests.phase.fetch.hostile import CHUNK, Answer, Artifact, Asked, Server, describe, evenly, good

DATA = random.Random(9).randbytes(30 * CHUNK + 99)  # noqa: S311
ARTIFACT = describe(DATA)
Send = Callable[[socket.socket, bytes], object]


@pytest.fixture
def out(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def fetch(urls: list[str], out: int, *, seconds: float = 30) -> FetchReport:
    return fetch_artifact(ARTIFACT, urls, out, deadline=monotonic() + seconds, resume=True)


def with_length(data: bytes, send: Send) -> Answer:
    """No ranges, whatever is asked for."""

    def answer(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data))
        send(connection, data)
        return True

    return answer


def until_close(data: bytes, send: Send) -> Answer:
    """As a server of 1996 does it."""

    def answer(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        connection.sendall(b"HTTP/1.0 200 OK\r\nServer: old\r\n\r\n")
        send(connection, data)
        return False

    return answer


def in_chunks(data: bytes, send: Send) -> Answer:
    """As a proxy does it that looks at what passes."""

    def answer(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(data), 7000):
            part = data[start : start + 7000]
            connection.sendall(b"%x;x=y\r\n" % len(part))
            send(connection, part)
            connection.sendall(b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        return True

    return answer


def quickly(connection: socket.socket, data: bytes) -> None:
    connection.sendall(data)


KINDS = (with_length, until_close, in_chunks)


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_without_ranges_is_read_whole(out: int, kind: Callable[[bytes, Send], Answer]) -> None:
    """First all of it, then what is missing of it: the rest is read over, not taken again."""
    with Server(kind(DATA, quickly)) as server:
        assert fetch([server.url], out).sources == {server.url: len(DATA)}
        os.pwrite(out, bytes(3 * CHUNK), 5 * CHUNK)
        report = fetch([server.url], out)
        assert (report.kept, report.sources) == (len(DATA) - 3 * CHUNK, {server.url: 3 * CHUNK})
        assert len(server.asked) == 2
    assert os.pread(out, len(DATA) + 1, 0) == DATA


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_breaks_off_is_asked_again(out: int, kind: Callable[[bytes, Send], Answer]) -> None:
    """What it had sent is kept: it only has to come further than before."""
    limits = [4 * CHUNK + 5, 9 * CHUNK, 20 * CHUNK, len(DATA)]

    def breaking(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        left = limits.pop(0)

        def send(connection: socket.socket, data: bytes) -> None:
            nonlocal left
            connection.sendall(data[:left])
            left -= len(data)
            if left < 0:
                connection.shutdown(socket.SHUT_RDWR)

        return kind(DATA, send)(asked, connection, stop)

    with Server(breaking) as server:
        report = fetch([server.url], out)
    assert report.sources == {server.url: len(DATA)}
    assert not limits
    assert os.pread(out, len(DATA) + 1, 0) == DATA


def test_several_without_ranges_work_together(out: int) -> None:
    """None has to send all: where one breaks off another goes on."""

    def breaking(limit: int) -> Answer:
        sent = 0

        def send(connection: socket.socket, data: bytes) -> None:
            nonlocal sent
            connection.sendall(data[: max(limit - sent, 0)])
            sent += len(data)
            if sent > limit:
                connection.shutdown(socket.SHUT_RDWR)

        return with_length(DATA, send)

    with contextlib.ExitStack() as stack:
        limits = (3 * CHUNK, 12 * CHUNK)
        short = [stack.enter_context(Server(breaking(limit))).url for limit in limits]
        whole = stack.enter_context(Server(in_chunks(DATA, quickly))).url
        report = fetch([*short, whole], out)
    assert sum(report.sources.values()) == len(DATA)
    assert os.pread(out, len(DATA) + 1, 0) == DATA


def test_one_with_ranges_and_one_without_share_the_work(out: int) -> None:
    """One begins at the start and the other at the end, so that nothing is fetched twice."""
    barrier = threading.Barrier(2, timeout=20)
    turns = 8

    def step() -> None:
        # At the end, one of them may wait for a turn that the other does not take any more.
        with contextlib.suppress(threading.BrokenBarrierError):
            barrier.wait()

    def paced(connection: socket.socket, data: bytes) -> None:
        for turn in range(turns):
            step()
            connection.sendall(data[turn * CHUNK : (turn + 1) * CHUNK])
        connection.sendall(data[turns * CHUNK :])

    taken: list[int] = []

    def ranged(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        if len(taken) < turns:
            step()
        assert asked.span is not None
        taken.append(asked.span[0])
        return good(DATA)(asked, connection, stop)

    with Server(with_length(DATA, paced)) as whole, Server(ranged) as other:
        report = fetch([whole.url, other.url], out)
        barrier.abort()
    assert os.pread(out, len(DATA) + 1, 0) == DATA
    assert report.sources[whole.url] >= CHUNK
    # The first ones may be asked for before it is known that the other one has no ranges.
    assert taken[3:] == sorted(taken[3:], reverse=True)


def test_a_liar_without_ranges_is_found_out(out: int) -> None:
    lies = DATA[: 7 * CHUNK] + bytes(len(DATA) - 7 * CHUNK)
    with Server(in_chunks(lies, quickly)) as liar:
        with pytest.raises(VerificationError, match="chunk 7 of rootfs is not the signed one"):
            fetch([liar.url], out)
        with Server(until_close(DATA, quickly)) as honest:
            assert fetch([liar.url, honest.url], out).kept == 7 * CHUNK
    assert os.pread(out, len(DATA) + 1, 0) == DATA


@pytest.mark.parametrize("more", [b"", b"and more" * 10_000])
def test_one_that_has_too_little_or_too_much(out: int, more: bytes) -> None:
    """What is behind the last chunk is not looked at; what is before must be all."""
    data = DATA + more if more else DATA[:-1]
    with Server(until_close(data, quickly)) as server:
        if more:
            fetch([server.url], out)
        else:
            with pytest.raises(ExhaustedError, match=r"1 of 31 chunks .* 1 bytes early"):
                fetch([server.url], out)
    assert os.pread(out, 30 * CHUNK, 0) == DATA[: 30 * CHUNK]
    assert os.fstat(out).st_size <= len(DATA)


def test_an_entity_tag_that_changes_changes_nothing(out: int) -> None:
    """The chunks say what is the same file, not the server."""
    count = iter(range(1000))

    def changing(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        first, last = asked.span or (0, len(DATA) - 1)
        head = f'HTTP/1.1 206 Part\r\nETag: "{next(count)}"\r\nContent-Range: bytes {first}-{last}/*\r\n'
        if asked.span is None:
            head = f'HTTP/1.1 200 OK\r\nETag: W/"{next(count)}"\r\n'
        connection.sendall(f"{head}Content-Length: {last + 1 - first}\r\n\r\n".encode())
        connection.sendall(DATA[first : last + 1])
        return True

    with Server(changing) as one, Server(changing) as two:
        fetch([one.url, two.url], out)
    assert os.pread(out, len(DATA) + 1, 0) == DATA


@pytest.mark.parametrize("kind", sorted(plain.KINDS))
def test_web_servers_that_know_nothing_of_us(out: int, tmp_path: Path, kind: str) -> None:
    blobs = tmp_path / "tree/blobs/sha256"
    blobs.mkdir(parents=True)
    (blobs / ARTIFACT.sha256).write_bytes(DATA)
    os.pwrite(out, DATA[: 11 * CHUNK], 0)  # as an interrupted fetch leaves it
    with plain.serving(tmp_path / "tree", kind) as one, plain.serving(tmp_path / "tree", kind) as two:
        report = fetch([one, two], out)
        assert report.kept == 11 * CHUNK
        assert sum(report.sources.values()) == len(DATA) - 11 * CHUNK
    assert os.pread(out, len(DATA) + 1, 0) == DATA


def test_an_exported_release_is_fetched_from_plain_servers(tmp_path: Path) -> None:
    """All the way: metadata and blobs, from both kinds at once, again where half is missing."""
    repository = Repository.create(tmp_path / "r", keys=ReleaseKeys.from_seed("plain"))
    (tmp_path / "kernel").write_bytes(DATA * 3)
    repository.add("stable", "x86_64", {"kernel": tmp_path / "kernel"}, release="1")
    repository.publish()
    export.export(repository, tmp_path / "tree")
    root, output = tmp_path / "tree/metadata/1.root.json", tmp_path / "out"
    words = ["fetch", "--root", str(root), "--output", str(output), "--arch", "x86_64"]
    with contextlib.ExitStack() as stack:
        for kind in sorted(plain.KINDS):
            words += ["--provider", stack.enter_context(plain.serving(tmp_path / "tree", kind))]
        assert CliRunner().invoke(cli, words).exit_code == 0
        (blob,) = (output / "blobs/sha256").iterdir()
        os.truncate(blob, len(DATA) * 2)
        assert CliRunner().invoke(cli, words).exit_code == 0
    assert blob.read_bytes() == DATA * 3


def test_memory_stays_flat_without_ranges_too(out: int) -> None:
    """96 MiB in chunks of a proxy, of which a chunk of ours is held at most."""
    size = 4 << 20
    block = random.Random(8).randbytes(size)  # noqa: S311
    one = describe(block)
    chunk = block[:CHUNK]
    count = 1536
    starts = evenly(CHUNK * count, CHUNK)
    artifact = Artifact("rootfs", CHUNK * count, one.sha256, starts, (one.chunks[0],) * count)

    def answer(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(count):
            connection.sendall(b"10000\r\n" + chunk + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        return True

    with Server(answer) as server, Server(answer) as other:
        before = peak(reset=True)
        fetch_artifact(artifact, [server.url, other.url], out, deadline=monotonic() + 60)
        assert peak() - before < 32 << 20
    assert os.pread(out, CHUNK, artifact.length - CHUNK) == chunk
