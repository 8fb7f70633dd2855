"""What clients of the gateway may have on its way: bodies are refused before they are read."""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from phase.identity import Identity
from phase.node import requests
from phase.node.admission import Admission
from phase.node.errors import RefusedError
from phase.node.requests import Checker
from tests.phase.node.conftest import CLIENT, NODE, Start
from tests.phase.node.gate import Http, http

_EMPTY = hashlib.sha256(b"").hexdigest()


@asynccontextmanager
async def _begun(
    client: Http, method: str, target: str, length: int, headers: Mapping[str, str]
) -> AsyncIterator[asyncio.StreamReader]:
    """A request whose body does not come; what the node answers."""
    host, port = client.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = [f"{method} {target} HTTP/1.1", "Host: x", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    try:
        yield reader
    finally:
        writer.close()


async def _status(reader: asyncio.StreamReader) -> int:
    async with asyncio.timeout(20):
        return int((await reader.readline()).split()[1])


async def _silent(reader: asyncio.StreamReader) -> None:
    """The node waits for the body."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await reader.read(1)


def _signed(identity: Identity, method: str, target: str) -> dict[str, str]:
    return requests.sign(identity, method, target, node=NODE.public_key)


async def test_a_body_of_a_stranger_is_not_read(start: Start) -> None:
    strange = _signed(Identity.ephemeral(), "POST", "/v1/jobs")
    old = _signed(CLIENT, "POST", "/v1/jobs") | {"Phase-Time": "1000000000"}
    async with start() as scene, http(scene) as client:
        for headers, status in (({}, 401), (strange, 403), (old, 401)):
            async with _begun(client, "POST", "/v1/jobs", 1 << 20, headers) as reader:
                assert await _status(reader) == status


async def _blob(client: Http, stack: AsyncExitStack, identity: Identity) -> asyncio.StreamReader:
    target = f"/v1/blobs/{os.urandom(32).hex()}"
    body = bytes.fromhex(target.removeprefix("/v1/blobs/"))
    covered = _signed(identity, "PUT", target)
    text = requests.text(
        "PUT",
        target,
        node=NODE.public_key,
        key=identity.public_key,
        at=covered["Phase-Time"],
        nonce=covered["Phase-Nonce"],
        sha256=body.hex(),
    )
    headers = covered | {"Phase-Signature": identity.sign(text).hex()}
    return await stack.enter_async_context(_begun(client, "PUT", target, 32 << 20, headers))


async def test_blobs_on_their_way_are_bounded_for_each_client(start: Start) -> None:
    other = Identity.ephemeral()
    admission = Admission([CLIENT.public_key, other.public_key])
    async with start(admission=admission) as scene, http(scene) as client:
        async with AsyncExitStack() as stack:
            waiting = [await _blob(client, stack, CLIENT) for _ in range(2)]
            for each in waiting:
                await _silent(each)
            assert await _status(await _blob(client, stack, CLIENT)) == 429
            await _silent(await _blob(client, stack, other))
        async with asyncio.timeout(20):
            while (await client.call("PUT", f"/v1/blobs/{_sha256(b'x')}", b"x")).status != 201:
                await asyncio.sleep(0.01)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def test_small_bodies_on_their_way_are_bounded_for_each_address(start: Start) -> None:
    async with start() as scene, http(scene) as client, AsyncExitStack() as stack:
        for _ in range(4):
            headers = _signed(CLIENT, "POST", "/v1/jobs")
            await _silent(
                await stack.enter_async_context(_begun(client, "POST", "/v1/jobs", 1 << 20, headers))
            )
        headers = _signed(CLIENT, "POST", "/v1/jobs")
        async with _begun(client, "POST", "/v1/jobs", 1, headers) as reader:
            assert await _status(reader) == 429
        assert (await client.call("GET", "/v1/jobs")).status == 200


def _check(checker: Checker, identity: Identity, headers: Mapping[str, str] | None = None) -> None:
    headers = headers or _signed(identity, "GET", "/")
    assert checker.check("GET", "/", headers, _EMPTY) == identity.public_key


def test_a_client_that_asks_a_lot_does_not_keep_out_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do many of them; and what is remembered of them is forgotten."""
    monkeypatch.setattr(requests, "CLIENT_NONCES", 5)
    monkeypatch.setattr(requests, "MAX_NONCES", 6)
    monkeypatch.setattr(requests, "FEW_NONCES", 2)
    now = [1_000_000_000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    checker = Checker(NODE.public_key, Admission(anyone=True), clock=lambda: now[0])
    for _ in range(5):
        _check(checker, CLIENT)
    with pytest.raises(RefusedError, match="too many requests"):
        _check(checker, CLIENT)
    others = [Identity.ephemeral() for _ in range(4)]
    for other in others[:3]:
        _check(checker, other)
        _check(checker, other)
    with pytest.raises(RefusedError, match="too many requests"):
        _check(checker, others[0])
    _check(checker, others[3])
    with pytest.raises(RefusedError, match="too many requests"):
        _check(checker, others[3])
    now[0] += 301
    _check(checker, CLIENT)
    assert len(checker._nonces._of) == 1
