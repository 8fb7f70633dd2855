import contextlib
import os
import random
import socket
import threading
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from time import monotonic

import pytest

from fixtures.hostile.trial import peak
from phase.fetch import ExhaustedError, FetchError, FetchReport, VerificationError, fetch_artifact, http
from tests.phase.fetch.hostile import CHUNK, Answer, Artifact, Asked, Server, describe, evenly, good, raw

DATA = random.Random(7).randbytes(20 * CHUNK + 1234)  # noqa: S311
ARTIFACT = describe(DATA)


@pytest.fixture
def out(tmp_path: object) -> Iterator[int]:
    descriptor = os.open(f"{tmp_path}/out", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def fetch(
    urls: list[str],
    out: int,
    *,
    artifact: Artifact = ARTIFACT,
    offset: int = 0,
    resume: bool = False,
    keep_fd: int | None = None,
    seconds: float = 30,
    liars: set[str] | None = None,
    whole: bool = False,
) -> FetchReport:
    return fetch_artifact(
        artifact,
        urls,
        out,
        offset=offset,
        deadline=monotonic() + seconds,
        resume=resume,
        keep_fd=keep_fd,
        liars=liars,
        whole=whole,
    )


def flipped(data: bytes, index: int) -> bytes:
    return data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :]


def test_one_provider_one_request(out: int) -> None:
    seen: list[tuple[int, int]] = []
    with Server(good(DATA)) as server:
        report = fetch_artifact(
            ARTIFACT,
            [server.url],
            out,
            offset=100,
            deadline=monotonic() + 30,
            progress=lambda done, whole: seen.append((done, whole)),
        )
        assert server.asked == [Asked(f"/blobs/sha256/{ARTIFACT.sha256}", None)]
        assert report.sources == {server.url: len(DATA)}
    assert os.pread(out, len(DATA) + 1, 100) == DATA
    assert os.pread(out, 100, 0) == bytes(100)
    assert len(seen) == 22
    assert seen[0] == (0, len(DATA))
    assert seen[-1] == (len(DATA), len(DATA))


def test_many_providers_share_the_work(out: int) -> None:
    with Server(good(DATA)) as one, Server(good(DATA)) as two, Server(good(DATA)) as three:
        report = fetch([one.url, two.url, three.url], out)
    assert os.pread(out, len(DATA), 0) == DATA
    assert sum(report.sources.values()) >= len(DATA)
    assert not report.dropped


@pytest.mark.parametrize("index", [0, 5 * CHUNK + 3, len(DATA) - 1])
def test_a_flipped_bit_is_never_written(out: int, index: int) -> None:
    with Server(good(flipped(DATA, index))) as server, pytest.raises(VerificationError) as caught:
        fetch([server.url], out)
    bad = index // CHUNK
    assert f"chunk {bad} of rootfs" in str(caught.value)
    assert server.url in str(caught.value)
    assert ARTIFACT.chunks[bad] in str(caught.value)
    assert os.fstat(out).st_size == bad * CHUNK
    assert os.pread(out, len(DATA), 0) == DATA[: bad * CHUNK]


def test_a_liar_is_dropped_at_the_first_bad_chunk_and_the_others_finish(out: int) -> None:
    lies = bytes(len(DATA))
    with Server(good(lies)) as liar, Server(good(DATA)) as honest:
        report = fetch([liar.url, honest.url], out)
        assert len(liar.asked) <= 1
    assert os.pread(out, len(DATA), 0) == DATA
    assert report.sources == {honest.url: len(DATA)}
    if liar.asked:
        assert "not the signed one" in report.dropped[liar.url]


def test_a_liar_is_not_asked_again(out: int) -> None:
    liars: set[str] = set()
    with Server(good(flipped(DATA, 0))) as liar, Server(good(DATA)) as honest:
        with pytest.raises(VerificationError, match="chunk 0 of rootfs is not the signed one"):
            fetch([liar.url], out, liars=liars)
        assert liars == {liar.url}
        asked = len(liar.asked)
        with pytest.raises(VerificationError, match=f"{liar.url}: it has sent wrong bytes before"):
            fetch([liar.url], out, liars=liars)
        report = fetch([liar.url, honest.url], out, liars=liars)
        assert len(liar.asked) == asked
    assert report.sources == {honest.url: len(DATA)}
    assert report.dropped == {}


def test_one_that_breaks_down_is_no_liar(out: int) -> None:
    liars: set[str] = set()
    broken = raw(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
    with Server(broken) as server, pytest.raises(ExhaustedError):
        fetch([server.url], out, liars=liars)
    assert not liars


def test_a_dead_provider_is_replaced(out: int) -> None:
    with Server(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")) as dead, Server(good(DATA)) as lives:
        fetch([dead.url, lives.url], out)
    assert os.pread(out, len(DATA), 0) == DATA


def test_a_provider_that_breaks_off_is_asked_for_the_rest(out: int) -> None:
    def breaks(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        if asked.span is not None:
            return good(DATA)(asked, connection, stop)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(DATA))
        connection.sendall(DATA[: 3 * CHUNK + 10])
        return False

    with Server(breaks) as server:
        fetch([server.url], out)
        assert server.asked[1].span == (3 * CHUNK, len(DATA) - 1)
    assert os.pread(out, len(DATA), 0) == DATA


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nshort",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 301 Moved\r\nLocation: http://elsewhere/\r\n\r\n",
    ],
)
def test_no_provider_left_says_why(out: int, answer: bytes) -> None:
    with Server(raw(answer)) as server, pytest.raises(ExhaustedError, match="21 of 21 chunks") as caught:
        fetch([server.url], out)
    assert server.url in str(caught.value)


def test_a_stuck_provider_does_not_hold_up_the_others(out: int) -> None:
    def stuck(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        stop.wait(60)
        return False

    begun = monotonic()
    with Server(stuck) as hangs, Server(good(DATA)) as works:
        report = fetch([hangs.url, works.url], out)
        assert report.sources == {works.url: len(DATA)}
        # The stuck one is given fifteen seconds for its headers; nobody waited for that.
        assert monotonic() - begun < 14
    assert os.pread(out, len(DATA), 0) == DATA


def test_two_that_are_stuck_at_the_same_chunk_do_not_hold_up_a_third(out: int) -> None:
    taken: list[tuple[int, int]] = []

    def first(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        taken.append(asked.span or (0, len(DATA)))
        stop.wait(60)
        return False

    def second(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        while not taken:
            stop.wait(0.01)
        if asked.span and any(begin <= asked.span[0] <= end for begin, end in taken):
            stop.wait(60)
            return False
        return good(DATA)(asked, connection, stop)

    def third(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        stop.wait(0.5)
        return good(DATA)(asked, connection, stop)

    with Server(first) as one, Server(second) as two, Server(third) as honest:
        report = fetch([one.url, two.url, honest.url], out, seconds=12)
        assert len(two.asked) > 1
    assert report.sources[honest.url]
    assert os.pread(out, len(DATA), 0) == DATA


def test_an_address_that_is_none_stops_nobody(out: int) -> None:
    with Server(good(DATA)) as works:
        report = fetch(["https://mirror.example", works.url], out)
    assert report.sources == {works.url: len(DATA)}
    assert "https://mirror.example" in report.dropped["https://mirror.example"]
    with pytest.raises(ExhaustedError, match=r"mirror\.example"):
        fetch(["https://mirror.example"], out)


def test_a_provider_that_takes_no_connection_does_not_hold_up_the_others(
    out: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "CONNECT_SECONDS", 60.0)
    with contextlib.ExitStack() as stack:
        # A full queue of a listener that never accepts: the kernel drops what comes after.
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        works = stack.enter_context(Server(good(DATA)))
        begun = monotonic()
        report = fetch([f"http://127.0.0.1:{full.getsockname()[1]}", works.url], out)
        assert monotonic() - begun < 30
    assert report.sources == {works.url: len(DATA)}
    assert os.pread(out, len(DATA), 0) == DATA


def test_total_deadline(out: int) -> None:
    def drip(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(DATA))
        while not stop.wait(0.02):
            connection.sendall(b"x")
        return False

    with Server(drip) as one, pytest.raises(ExhaustedError, match="time"):
        fetch([one.url], out, seconds=0.5)
    with Server(drip) as one, Server(drip) as two, pytest.raises(ExhaustedError):
        fetch([one.url, two.url], out, seconds=0.5)


def test_resume_keeps_only_what_verifies(out: int) -> None:
    os.pwrite(out, flipped(DATA[: 10 * CHUNK], 4 * CHUNK), 0)
    with Server(good(DATA)) as server:
        report = fetch([server.url], out, resume=True)
        spans = [asked.span for asked in server.asked]
    assert spans == [(4 * CHUNK, 5 * CHUNK - 1), (10 * CHUNK, len(DATA) - 1)]
    assert report.kept == 9 * CHUNK
    assert os.pread(out, len(DATA), 0) == DATA


def without_ranges(data: bytes, sent: int) -> Answer:
    """Answers everything with the whole, of which it sends so many bytes; then it waits."""

    def answer(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data[:sent])
        if sent < len(data):
            stop.wait(60)
        return False

    return answer


def test_of_a_whole_answer_what_is_there_already_is_read_over(out: int) -> None:
    os.pwrite(out, DATA[CHUNK : 2 * CHUNK], CHUNK)
    os.pwrite(out, DATA[20 * CHUNK :], 20 * CHUNK)
    begun = monotonic()
    with Server(without_ranges(flipped(DATA, CHUNK + 5), 20 * CHUNK)) as server:
        report = fetch([server.url], out, resume=True, seconds=20)
    assert os.pread(out, len(DATA), 0) == DATA
    assert report.sources == {server.url: 19 * CHUNK}
    # The last chunk is there, so nobody waits for it.
    assert monotonic() - begun < 10


def test_after_a_whole_answer_that_broke_off_the_first_missing_chunks_are_asked_for(out: int) -> None:
    for index in (0, 10):
        os.pwrite(out, DATA[index * CHUNK : (index + 1) * CHUNK], index * CHUNK)

    def breaks(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        if len(server.asked) > 1:
            return good(DATA)(asked, connection, stop)
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(DATA)
        connection.sendall(head + DATA[: 3 * CHUNK])
        return False

    with Server(breaks) as server:
        fetch([server.url], out, resume=True)
        assert [asked.span for asked in server.asked][1:] == [
            (3 * CHUNK, 10 * CHUNK - 1),
            (11 * CHUNK, len(DATA) - 1),
        ]
    assert os.pread(out, len(DATA), 0) == DATA


def test_nothing_left_to_do_asks_nobody(out: int) -> None:
    os.pwrite(out, DATA, 0)
    assert fetch([], out, resume=True).kept == len(DATA)


@pytest.mark.parametrize(
    "artifact",
    [
        ARTIFACT._replace(sha256="../../etc/passwd"),
        ARTIFACT._replace(chunks=ARTIFACT.chunks[1:]),
        ARTIFACT._replace(starts=ARTIFACT.starts[1:]),
        ARTIFACT._replace(starts=(0, *ARTIFACT.starts[:-2], len(DATA))),
        ARTIFACT._replace(starts=(1, *ARTIFACT.starts[1:])),
        ARTIFACT._replace(starts=(*ARTIFACT.starts[:-2], 1 << 40, len(DATA))),
        describe(b"abc")._replace(starts=(0, 1 << 40), length=1 << 40),
        ARTIFACT._replace(length=-1),
        describe(b"abc")._replace(sha256="0" * 64),
    ],
)
def test_descriptions_that_make_no_sense(out: int, artifact: Artifact) -> None:
    with Server(good(DATA)) as server:
        with pytest.raises(FetchError):
            fetch([server.url], out, artifact=artifact)
        assert not server.asked


def test_a_full_disk_is_not_the_providers_fault(tmp_path: object) -> None:
    path = f"{tmp_path}/read-only"
    with open(path, "wb"):
        pass
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with Server(good(DATA)) as one, Server(good(DATA)) as two:
            for urls in ([one.url], [one.url, two.url]):
                with pytest.raises(OSError, match="descriptor"):
                    fetch(urls, descriptor)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("count", [1, 2])
def test_what_arrives_is_kept_for_the_next_time(out: int, tmp_path: Path, count: int) -> None:
    kept = tmp_path / "kept"
    file = os.open(kept, os.O_RDWR | os.O_CREAT)
    try:
        with Server(good(DATA)) as one, Server(good(DATA)) as two:
            report = fetch([one.url, two.url][:count], out, keep_fd=file, offset=7)
    finally:
        os.close(file)
    assert not report.unkept
    assert kept.read_bytes() == DATA


def test_what_cannot_be_kept_is_fetched_all_the_same(out: int, tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    file = os.open(tmp_path / "kept", os.O_RDONLY)
    try:
        with Server(good(DATA)) as one:
            report = fetch([one.url], out, keep_fd=file)
    finally:
        os.close(file)
    assert report.unkept
    assert os.pread(out, len(DATA), 0) == DATA


@pytest.mark.parametrize("count", [1, 3])
def test_memory_stays_flat_however_long_the_artifact(out: int, count: int) -> None:
    """192 MiB, of which neither side ever holds more than a chunk for each provider."""
    size, chunks = 4 << 20, 48
    block = random.Random(8).randbytes(size)  # noqa: S311
    whole = sha256()
    for _ in range(chunks):
        whole.update(block)
    starts = evenly(size * chunks, size)
    artifact = Artifact(
        "rootfs", size * chunks, whole.hexdigest(), starts, (sha256(block).hexdigest(),) * chunks
    )

    def answer(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        first, last = asked.span or (0, artifact.length - 1)
        status = "206 Partial Content" if asked.span else "200 OK"
        head = f"HTTP/1.1 {status}\r\nContent-Range: bytes {first}-{last}/{artifact.length}\r\n"
        connection.sendall(f"{head}Content-Length: {last - first + 1}\r\n\r\n".encode())
        for _ in range(first, last + 1, size):
            connection.sendall(block)
        return True

    with contextlib.ExitStack() as stack:
        urls = [stack.enter_context(Server(answer)).url for _ in range(count)]
        before = peak(reset=True)
        report = fetch(urls, out, artifact=artifact, seconds=100)
        grown = peak() - before
    assert sum(report.sources.values()) >= artifact.length
    assert os.fstat(out).st_size == artifact.length
    assert os.pread(out, size, artifact.length - size) == block
    assert grown < 64 << 20


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("there", [(), (0, 1), (5, 19), range(21)])
def test_the_whole_is_hashed_in_whatever_order_it_comes(out: int, count: int, there: Sequence[int]) -> None:
    for index in there:
        os.pwrite(out, DATA[index * CHUNK : (index + 1) * CHUNK], 7 + index * CHUNK)
    lying = ARTIFACT._replace(sha256=sha256(b"another").hexdigest())
    with contextlib.ExitStack() as stack:
        urls = [stack.enter_context(Server(good(DATA))).url for _ in range(count)]
        with pytest.raises(VerificationError, match=f"make a file of sha256 {ARTIFACT.sha256}, but it is"):
            fetch(urls, out, artifact=lying, offset=7, resume=bool(there), whole=True)
        report = fetch(urls, out, offset=7, resume=bool(there), whole=True)
    assert report.kept == (len(DATA) if there else 0)
    assert os.pread(out, len(DATA) + 1, 7) == DATA


def test_a_fetch_that_fails_does_not_wait_for_the_hash(out: int) -> None:
    before = threading.active_count()
    with Server(good(flipped(DATA, 5 * CHUNK))) as server, pytest.raises(VerificationError, match="chunk 5"):
        fetch([server.url], out, whole=True)
    with pytest.raises(ExhaustedError):
        fetch(["http://127.0.0.1:9"], out, whole=True)
    for thread in threading.enumerate()[before:]:
        thread.join(5)
    assert threading.active_count() == before


def test_a_file_that_cannot_be_read_back_fails_the_fetch(tmp_path: Path) -> None:
    """And nothing waits for ever: not the hash for a chunk, not the fetch for the hash."""
    descriptor = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    try:
        with Server(good(DATA)) as server, pytest.raises(OSError, match="Bad file descriptor"):
            fetch([server.url], descriptor, whole=True)
    finally:
        os.close(descriptor)
