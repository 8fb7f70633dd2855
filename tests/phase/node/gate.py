"""A client of a node's HTTP gateway, for tests."""

import hashlib
import io
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp

from phase.identity import Identity
from phase.node import requests
from phase.provider import listening
from tests.phase.node.conftest import CLIENT, NODE, Scene


class Answer(NamedTuple):
    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Http:
    """A client of the gateway."""

    def __init__(self, session: aiohttp.ClientSession, url: str, identity: Identity) -> None:
        self.session, self.url, self.identity = session, url, identity

    async def send(self, method: str, target: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        async with self.session.request(
            method, self.url + target, data=io.BytesIO(body), headers=headers
        ) as answer:
            return Answer(answer.status, await answer.read(), answer.headers)

    async def call(self, method: str, target: str, body: bytes | dict[str, Any] = b"") -> Answer:
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        headers = requests.sign(self.identity, method, target, node=NODE.public_key, body=data)
        return await self.send(method, target, data, headers)

    async def put(self, data: bytes) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        assert (await self.call("PUT", f"/v1/blobs/{sha256}", data)).status in (200, 201)
        return sha256

    async def job(self, module: bytes, stdin: bytes | None = None, **more: Any) -> str:
        name = os.urandom(16).hex()
        asked = {"job": name, "module": await self.put(module), **more}
        if stdin is not None:
            asked["stdin"] = await self.put(stdin)
        answer = await self.call("POST", "/v1/jobs", asked)
        assert (answer.status, answer.json["state"]) in ((202, "queued"), (202, "running"), (202, "done"))
        return name


@asynccontextmanager
async def http(scene: Scene, identity: Identity = CLIENT) -> AsyncIterator[Http]:
    listeners = listening.listen(["127.0.0.1"], 0)
    async with scene.daemon.web(listeners), aiohttp.ClientSession() as session:
        yield Http(session, f"http://127.0.0.1:{listeners[0].getsockname()[1]}", identity)
