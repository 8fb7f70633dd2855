import asyncio
import json

import pytest

from phase.provider import guard, limits
from phase.provider.limits import Limits, client_of
from tests.phase.provider.conftest import Publish
from tests.phase.provider.test_server import ask, running


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
