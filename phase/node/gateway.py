"""The HTTP gateway: jobs for programs that do not speak QUIC. docs/develop/gateway.md has the format."""

import asyncio
import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Annotated, Literal

import msgspec
from aiohttp import web

from phase.errors import printable
from phase.foreign import MalformedError, read_json
from phase.jobs.grant import MAX_FILES
from phase.jobs.limits import Limits
from phase.jobs.receipt import Attempt, Content, Hex256
from phase.node import requests
from phase.node.arriving import check_words
from phase.node.blobs import Blobs
from phase.node.errors import RefusedError, StateError, as_refusal
from phase.node.refusals import Refusals
from phase.node.requests import Checker, UnsignedError
from phase.node.room import Room
from phase.node.scheduler import Scheduler
from phase.node.serving import Serving
from phase.peer.framing import MAX_MESSAGE, SECONDS
from phase.peer.messages import (
    Count,
    FileName,
    JobId,
    JobStatus,
    Nonce,
    Offer,
    Reason,
    Request,
    State,
    Word,
    schema,
)
from phase.provider import guard
from phase.provider.problems import cut_off

_log = logging.getLogger(__name__)
#: The largest blob.
MAX_BLOB = Limits().module_bytes
#: Bytes of bodies on their way, of one sender and of all: while it is not known whose they are, by address;
#: and of blobs, by client.
UNPROVEN_BYTES = 4 << 20, 32 << 20
COMING_BYTES = 64 << 20, 256 << 20
#: Longest wait for the end of a job in one request, seconds.
MAX_WAIT = 30.0
#: The slowest body: bytes a second, after the first seconds.
LEAST_RATE = 16 << 10
#: Seconds between two looks for more output of a job that runs.
_LOOK_SECONDS = 0.05
#: Seconds that a client may leave output unread.
_SEND_SECONDS = 60.0
_CHUNK = 64 << 10
_HEX = re.compile("[0-9a-f]{64}")
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, HEAD, PUT, POST, DELETE",
    "Access-Control-Allow-Headers": "Phase-Key, Phase-Time, Phase-Nonce, Phase-Signature, Content-Type, "
    "Content-Digest",
    "Access-Control-Expose-Headers": "Retry-After",
    "Access-Control-Max-Age": "86400",
}
_STATUS = {
    Reason.INVALID_REQUEST: 400,
    Reason.NOT_AUTHORISED: 403,
    Reason.UNKNOWN_JOB: 404,
    Reason.DUPLICATE: 409,
    Reason.QUEUE_FULL: 429,
    Reason.QUOTA: 429,
    Reason.ARCH_MISMATCH: 501,
    Reason.RUNTIME_NOT_SUPPORTED: 501,
    Reason.INSUFFICIENT_RESOURCES: 503,
    Reason.STOPPING: 503,
}
#: What requests were refused for.
REFUSALS: web.AppKey[Refusals] = web.AppKey("refusals", Refusals)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job, as a client of the gateway describes it.

    Args:
        job: its id, which this client has not used here before.
        nonce: for the receipt.
        module: hash of a blob.
        args: arguments.
        env: the whole environment.
        stdin: hash of a blob; null for no input.
        inputs: hashes of blobs, which the module finds as files in `/input`, by their names.
        outputs: names of the files in `/output` that are kept.
        limits: of the job.
        arch: what the node must be; null for any.
        runtime: what must run it.
        deterministic: whether every node must compute the same.
        seed: of its random bytes; it makes the job deterministic.
        attempt: how often this client has had this job run, with this time.
    """

    job: JobId
    nonce: Nonce = ""
    module: Hex256
    args: tuple[str, ...] = ()
    env: dict[str, str] = msgspec.field(default_factory=dict)
    stdin: Hex256 | None = None
    inputs: Annotated[dict[FileName, Hex256], msgspec.Meta(max_length=MAX_FILES)] = msgspec.field(
        default_factory=dict
    )
    outputs: Annotated[tuple[FileName, ...], msgspec.Meta(max_length=MAX_FILES)] = ()
    limits: Limits = msgspec.field(default_factory=Limits)
    arch: Literal["x86_64", "arm64"] | None = None
    runtime: Word = "wasi-preview1"
    deterministic: bool = False
    seed: Count | None = None
    attempt: Attempt = 1

    @property
    def world(self) -> int | None:
        """The seed of a deterministic job; None for any other."""
        return 0 if self.deterministic and self.seed is None else self.seed


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """An error (RFC 9457), with a reason that a program can act on."""

    type: str = "about:blank"
    title: str
    status: Annotated[int, msgspec.Meta(ge=400, le=599)]
    detail: str
    reason: str


class ProblemError(Exception):
    """A request that is answered with a problem."""

    def __init__(self, status: int, reason: str, detail: str) -> None:
        self.status, self.reason, self.detail = status, reason, detail
        super().__init__(detail)


class Gateway:
    """Answers signed requests.

    Args:
        scheduler: the node's core.
        serving: what it answers by other ways.
        blobs: modules and inputs that are here.
        checker: decides who may.
    """

    def __init__(self, scheduler: Scheduler, serving: Serving, blobs: Blobs, checker: Checker) -> None:
        self._scheduler, self._serving, self._blobs, self._checker = scheduler, serving, blobs, checker
        self._unproven, self._coming = Room(*UNPROVEN_BYTES), Room(*COMING_BYTES)

    def routes(self) -> list[web.RouteDef]:
        """For an application that has `answered` among its middlewares."""
        return [
            web.get("/v1/node", self._node, allow_head=False),
            web.head("/v1/blobs/{sha256}", self._has),
            web.put("/v1/blobs/{sha256}", self._put),
            web.post("/v1/jobs", self._post),
            web.get("/v1/jobs", self._list, allow_head=False),
            web.get("/v1/jobs/{job}", self._get, allow_head=False),
            web.delete("/v1/jobs/{job}", self._delete),
            web.get("/v1/jobs/{job}/{name:stdout|stderr}", self._output, allow_head=False),
            web.get("/v1/jobs/{job}/files/{file}", self._file, allow_head=False),
            web.get("/v1/jobs/{job}/receipt", self._receipt, allow_head=False),
            web.route("OPTIONS", "/v1/{rest:.*}", self._options),
        ]

    async def _options(self, _: web.Request) -> web.Response:
        return web.Response(status=204)

    async def _node(self, _: web.Request) -> web.Response:
        return _json(self._serving.describe())

    async def _client(self, request: web.Request) -> str:
        """The client of a request without a body; checks the signature."""
        return (await self._small(request, 0))[0]

    async def _small(self, request: web.Request, most: int) -> tuple[str, bytes]:
        """The client and the body of a request; by its digest or, if it has none, once the body is here."""
        self._checker.look(request.headers)
        told = requests.digest(request.headers)
        if told is not None:
            return await self._proven(request, most, told)
        with self._unproven.taken(request.remote or "", _length(request, most)):
            body, sha256 = await _body(request, most)
        return self._signed(request, sha256), body

    async def _proven(self, request: web.Request, most: int, sha256: str) -> tuple[str, bytes]:
        """The same of one whose body is named by its hash: nobody else can take the client's room."""
        client = self._signed(request, sha256)
        with self._coming.taken(client, _length(request, most)):
            body, found = await _body(request, most)
        if found != sha256:
            raise ProblemError(422, "invalid request", "the body is not that of Content-Digest")
        return client, body

    def _signed(self, request: web.Request, sha256: str) -> str:
        return self._checker.check(request.method, request.raw_path, request.headers, sha256)

    async def _has(self, request: web.Request) -> web.Response:
        client = await self._client(request)
        return web.Response(status=200 if self._blobs.has(client, _hash(request)) else 404)

    async def _put(self, request: web.Request) -> web.Response:
        sha256 = _hash(request)
        # The name is the hash of the body: a client that may not bring one is refused before it is read.
        client = self._signed(request, sha256)
        if self._blobs.has(client, sha256):
            return _json({"sha256": sha256})
        with self._coming.taken(client, _length(request, MAX_BLOB)):
            body, found = await _body(request, MAX_BLOB)
            if found != sha256:
                raise ProblemError(422, "invalid request", "the body does not have the hash that names it")
            await self._serving.brought.keep(client, sha256, body)
        return _json({"sha256": sha256}, 201)

    async def _post(self, request: web.Request) -> web.Response:
        client, body = await self._small(request, MAX_MESSAGE)
        try:
            asked = read_json(body, Asked)
        except MalformedError as error:
            raise ProblemError(400, "invalid request", f"not a job: {error}") from error
        module = await self._blob(client, asked.module)
        stdin = b"" if asked.stdin is None else await self._blob(client, asked.stdin)
        inputs = {name: await self._blob(client, sha256) for name, sha256 in asked.inputs.items()}
        await self._take(client, asked, module, stdin, inputs)
        return _json(self._serving.status(client, asked.job), 202)

    async def _blob(self, client: str, sha256: str) -> bytes:
        data = await self._serving.brought.blob(client, sha256)
        if data is None:
            raise ProblemError(404, "blob missing", f"the blob {sha256} is not here: PUT it first")
        return data

    async def _take(
        self, client: str, asked: Asked, module: bytes, stdin: bytes, inputs: dict[str, bytes]
    ) -> None:
        offer = Offer(
            job=asked.job,
            nonce=asked.nonce,
            module=Content(asked.module, len(module)),
            limits=asked.limits,
            arch=asked.arch,
            runtime=asked.runtime,
            seed=asked.world,
            attempt=asked.attempt,
            detached=True,
            input=len(stdin),
            inputs={name: Content(asked.inputs[name], len(data)) for name, data in inputs.items()},
            outputs=asked.outputs,
        )
        said = Request(args=asked.args, env=asked.env)
        check_words(said)
        work = self._scheduler.admit(client, offer, whole=True)
        try:
            work.request, work.module, work.stdin, work.inputs = said, module, stdin, inputs
            await self._scheduler.begin(work)
            await self._scheduler.enqueue(work)
        except BaseException:
            if not work.ended.done():
                await self._scheduler.withdraw(work)
            raise

    async def _list(self, request: web.Request) -> web.Response:
        return _json(self._serving.jobs(await self._client(request)))

    async def _get(self, request: web.Request) -> web.Response:
        client, job = await self._client(request), request.match_info["job"]
        seconds = _wait(request.query.get("wait", "0"))
        self._serving.status(client, job)
        work = self._scheduler.find(client, job)
        if work is not None and seconds:
            await asyncio.wait([work.ended], timeout=seconds)
        return _json(self._serving.status(client, job))

    async def _delete(self, request: web.Request) -> web.Response:
        client, job = await self._client(request), request.match_info["job"]
        await self._scheduler.cancel(client, job)
        return _json(self._serving.status(client, job), 202)

    async def _receipt(self, request: web.Request) -> web.Response:
        client, job = await self._client(request), request.match_info["job"]
        status = self._serving.status(client, job)
        if self._scheduler.find(client, job) is not None:
            raise ProblemError(409, "not ended", f"the job is {status.state.value}")
        receipt = await self._scheduler.disk.run(self._scheduler.kept.receipt, client, job)
        if receipt is None:
            raise ProblemError(404, "unknown job", _no_receipt(status))
        return web.Response(body=receipt, content_type="application/json")

    async def _file(self, request: web.Request) -> web.StreamResponse:
        client, job = await self._client(request), request.match_info["job"]
        status = self._serving.status(client, job)
        if self._scheduler.find(client, job) is not None:
            raise ProblemError(409, "not ended", f"the job is {status.state.value}")
        descriptor = self._scheduler.kept.file(client, job, request.match_info["file"])
        if descriptor is None:
            raise ProblemError(404, "no file", "the job has left no file of this name, or it is not kept")
        return await self._sent(request, client, job, descriptor)

    async def _output(self, request: web.Request) -> web.StreamResponse:
        client, job = await self._client(request), request.match_info["job"]
        status = self._serving.status(client, job)
        name: Literal["stdout", "stderr"] = "stdout" if request.match_info["name"] == "stdout" else "stderr"
        descriptor = self._scheduler.kept.output(client, job, name)
        if descriptor is None:
            raise ProblemError(404, "unknown job", _no_receipt(status))
        return await self._sent(request, client, job, descriptor)

    async def _sent(
        self, request: web.Request, client: str, job: str, descriptor: int
    ) -> web.StreamResponse:
        """Send a file, which is closed then."""
        answer = web.StreamResponse(headers=_CORS)
        answer.content_type = "application/octet-stream"
        try:
            await answer.prepare(request)
            await self._follow(client, job, descriptor, answer)
            await answer.write_eof()
        except (ConnectionError, TimeoutError) as error:
            raise ConnectionResetError("the client has left, or reads nothing") from error
        except Exception as error:
            # Half of it is out: a problem would be read as more of it.
            _log.exception("the output of the job %s broke off", job)
            raise ConnectionResetError("the answer broke off") from error
        finally:
            os.close(descriptor)
        return answer

    async def _follow(self, client: str, job: str, descriptor: int, answer: web.StreamResponse) -> None:
        """Send a file to its end; while its job runs, also what is added."""
        while True:
            work = self._scheduler.find(client, job)
            part = await self._scheduler.disk.run(os.read, descriptor, _CHUNK)
            if part:
                async with asyncio.timeout(_SEND_SECONDS):
                    await answer.write(part)
            elif work is None:
                return
            else:
                await asyncio.wait([work.ended], timeout=_LOOK_SECONDS)


@web.middleware
async def answered(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Answer, while the connection's guard knows of it: it cuts off those on which nothing is asked."""
    watched = guard.of(request)
    if watched is None:
        return await _answered(request, handler)
    watched.request_started()
    try:
        return await _answered(request, handler)
    finally:
        watched.request_done()


async def _answered(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Answer with a problem where a handler refuses; allow browsers to read the answer."""
    try:
        answer = await handler(request)
    except ConnectionError:
        return cut_off(request)
    except (ProblemError, RefusedError, StateError, OSError, web.HTTPException) as error:
        answer = _refused(request, _as_problem(error))
        if isinstance(error, web.HTTPMethodNotAllowed):
            answer.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
    except Exception:
        _log.exception("the answer to %s %s failed", request.method, printable(request.path)[:200])
        answer = _refused(request, ProblemError(500, "fault", "this node has a fault; its log says more"))
    if not answer.prepared:
        answer.headers.update(_CORS)
    if answer.status >= 400 and not request.content.is_eof():
        # Its body has not been read.
        answer.force_close()
    return answer


def _as_problem(
    error: ProblemError | RefusedError | StateError | OSError | web.HTTPException,
) -> ProblemError:
    match error:
        case ProblemError():
            return error
        case UnsignedError():
            return ProblemError(401, error.reason.value, error.detail)
        case web.HTTPException():
            return ProblemError(error.status, "invalid request", error.reason)
        case _:
            said = as_refusal(error)
            return ProblemError(_STATUS[said.reason], said.reason.value, said.detail)


def _refused(request: web.Request, error: ProblemError) -> web.Response:
    words = f"{error.status} {error.reason}"
    request.app[REFUSALS].add(words, f"a request of {request.remote}", f"{words}: {error.detail}")
    return _problem(error)


def _problem(error: ProblemError) -> web.Response:
    body = Problem(
        title=HTTPStatus(error.status).phrase, status=error.status, detail=error.detail, reason=error.reason
    )
    answer = web.Response(
        status=error.status, body=msgspec.json.encode(body), content_type="application/problem+json"
    )
    if error.status == 429:
        answer.headers["Retry-After"] = "1"
    return answer


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(value), content_type="application/json")


def _hash(request: web.Request) -> str:
    sha256 = request.match_info["sha256"]
    if not _HEX.fullmatch(sha256):
        raise ProblemError(400, "invalid request", "a blob is named by 64 lower-case hex digits")
    return sha256


def _wait(text: str) -> float:
    with contextlib.suppress(ValueError):
        seconds = float(text)
        if 0 <= seconds <= MAX_WAIT:
            return seconds
    raise ProblemError(400, "invalid request", f"wait is a number of seconds up to {MAX_WAIT:g}")


def _length(request: web.Request, most: int) -> int:
    """Bytes that a body may take: what it says, or the most."""
    return most if request.content_length is None else min(request.content_length, most)


async def _body(request: web.Request, most: int) -> tuple[bytes, str]:
    """The body of a request, within a length and a time, and its SHA-256 in hex.

    Raises:
        ProblemError: it is too long, or comes too slowly.
    """
    length = request.content_length
    if length is not None and length > most:
        raise ProblemError(413, "invalid request", f"the body has {length} bytes; the limit is {most}")
    data, hashed = bytearray(), hashlib.sha256()
    try:
        async with asyncio.timeout(SECONDS + (length or most) / LEAST_RATE):
            while part := await request.content.readany():
                data += part
                hashed.update(part)
                if len(data) > most:
                    raise ProblemError(413, "invalid request", f"the body is over {most} bytes")
    except TimeoutError:
        raise ProblemError(408, "invalid request", "the body came too slowly") from None
    except web.RequestPayloadError:
        raise ProblemError(400, "invalid request", "the body ended early") from None
    return bytes(data), hashed.hexdigest()


def _no_receipt(status: JobStatus) -> str:
    if status.state is State.DONE:
        return "its result is not kept any more"
    return f"the job is {status.state.value}{status.detail and ': '}{status.detail}"


def schemas() -> dict[str, dict[str, object]]:
    """The published JSON schemas (draft 2020-12) of what only the gateway has, by file name."""
    kinds: dict[str, type[msgspec.Struct]] = {"gateway-job": Asked, "gateway-problem": Problem}
    return {f"{name}-v1.json": schema(kind, name) for name, kind in kinds.items()}
