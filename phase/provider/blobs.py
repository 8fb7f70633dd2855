"""Sends blobs by sendfile, with the headers that every provider must agree on.

aiohttp's own FileResponse is not used: its entity tag is made of the modification time, so it
differs between providers of the same bytes; it ignores If-Range with an entity tag, so a resumed
download of a changed file is corrupt; and it serves a `.gz` neighbour in place of the file.
"""

import asyncio
import base64
import contextlib
import os
from collections.abc import Collection
from functools import lru_cache
from typing import BinaryIO

from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from phase.beneath import Beneath
from phase.provider import ranges
from phase.provider.documents import MAX_FILES, Document
from phase.provider.limits import EXHAUSTED, RETRY_SECONDS
from phase.provider.problems import problem
from phase.provider.store import Store, look_of

#: A reader must take this many bytes in that many seconds, or its connection is closed.
SLICE = 8 << 20
SLICE_SECONDS = 120.0
#: A whole answer may take this many seconds, plus the time of its bytes at this rate, bytes per second.
ANSWER_SECONDS = 60.0
MIN_RATE = 100_000
CACHE_FOREVER = "public, max-age=31536000, immutable"
CACHE_ASK = "no-cache"
OCTETS = "application/octet-stream"
JSON = "application/json"


class SentFile(web.StreamResponse):
    """A part of an open file."""

    def __init__(self, file: BinaryIO, first: int, length: int, *, status: int) -> None:
        super().__init__(status=status)
        self._file = file
        self._first = first
        self._count = length
        self.content_length = length

    async def send(self, request: web.Request) -> None:
        """Send head and body.

        Raises:
            TimeoutError: the reader takes it too slowly or not at all.
            ConnectionError: the reader has left.
        """
        await self.prepare(request)
        transport = request.transport
        if request.method == "HEAD" or not self._count:
            await self.write_eof()
            return
        if transport is None:
            raise ConnectionResetError("the reader has left")
        loop = asyncio.get_running_loop()
        offset, left = self._first, self._count
        end = loop.time() + ANSWER_SECONDS + left / MIN_RATE
        while left:
            async with asyncio.timeout_at(min(loop.time() + SLICE_SECONDS, end)):
                sent = await loop.sendfile(transport, self._file, offset, min(SLICE, left))
            if not sent:
                # The file has become shorter. Its length was promised, so only closing is honest.
                transport.abort()
                raise ConnectionResetError("the blob is shorter than it was")
            offset += sent
            left -= sent
        await self.write_eof()


async def send_blob(
    request: web.Request,
    store: Store,
    sha256: str,
    lengths: Collection[int],
    *,
    immutable: bool,
    content_type: str = OCTETS,
) -> web.StreamResponse:
    """Answer with a blob, a part of it, or a problem.

    Args:
        request: the request.
        store: the repository that holds the blob.
        sha256: the blob's hash in hex.
        lengths: the lengths that releases give for it, bytes.
        immutable: whether the path always means these bytes.
        content_type: of the answer.
    """
    etag = f"sha256-{sha256}"
    headers = blob_headers(sha256, immutable=immutable)
    if ranges.precondition_failed(request.headers.get("If-Match"), etag):
        return problem(412, "the file is another one than If-Match asks for")
    if ranges.not_modified(request.headers.get("If-None-Match"), etag):
        return web.Response(status=304, headers=headers)
    with contextlib.ExitStack() as opened:
        try:
            file = opened.enter_context(Beneath(store.directory, f"blobs/sha256/{sha256}").open())
        except OSError as error:
            if error.errno in EXHAUSTED:
                return problem(503, "this provider has too many files open", retry=RETRY_SECONDS)
            return problem(404, "the release names this file, but this provider does not hold it")
        found = os.fstat(file.fileno())
        if store.damaged.get(sha256) == look_of(found):
            return problem(500, "the stored file is damaged: its bytes have another hash")
        if found.st_size not in lengths:
            said = " or ".join(map(str, sorted(lengths)))
            return problem(500, f"the stored file has {found.st_size} bytes, the release says {said}")
        response = _selected(request, file, etag, found.st_size)
        if not isinstance(response, SentFile):
            return response
        response.headers.update(headers)
        response.content_type = content_type
        await response.send(request)
        return response


def blob_headers(sha256: str, *, immutable: bool) -> dict[str, str]:
    """The headers of every answer with a blob, or with a part of it.

    Args:
        sha256: the blob's hash in hex.
        immutable: whether the path always means these bytes.
    """
    return {
        "ETag": f'"sha256-{sha256}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": CACHE_FOREVER if immutable else CACHE_ASK,
        "Repr-Digest": repr_digest(bytes.fromhex(sha256)),
    }


def _selected(request: web.Request, file: BinaryIO, etag: str, length: int) -> web.StreamResponse:
    """Answer with the part of an open file that is asked for; status 416 where it has no such part."""
    asked = request.headers.get("Range") if request.method == "GET" else None
    choice = ranges.select(asked, request.headers.get("If-Range"), etag, length)
    if isinstance(choice, ranges.Unsatisfiable):
        answer = problem(416, f"the file has {length} bytes")
        answer.headers["Content-Range"] = f"bytes */{length}"
        return answer
    if isinstance(choice, ranges.Whole):
        return SentFile(file, 0, length, status=200)
    part = SentFile(file, choice.first, choice.length, status=206)
    part.headers["Content-Range"] = f"bytes {choice.first}-{choice.first + choice.length - 1}/{length}"
    return part


def send_document(request: web.Request, document: Document, *, content_type: str) -> web.Response:
    """Answer with a small file from memory."""
    asked = request.headers.get("If-None-Match")
    if asked is not None and ranges.not_modified(asked, document.etag):
        return web.Response(status=304, headers=_headers(document.digest))
    return document_answer(document, content_type=content_type)


def document_answer(document: Document, *, content_type: str = JSON) -> web.Response:
    """The answer with a whole small file."""
    return web.Response(body=document.body, content_type=content_type, headers=_headers(document.digest))


def no_metadata() -> web.Response:
    """The answer where there is no metadata of a name."""
    return problem(404, "there is no such metadata file")


@lru_cache(maxsize=MAX_FILES)
def _headers(digest: bytes) -> CIMultiDictProxy[str]:
    headers = {
        "ETag": f'"sha256-{digest.hex()}"',
        "Cache-Control": CACHE_ASK,
        "Repr-Digest": repr_digest(digest),
    }
    return CIMultiDictProxy(CIMultiDict(headers))


def repr_digest(digest: bytes) -> str:
    """The Repr-Digest field. It describes the whole file, also in an answer with a part (RFC 9530)."""
    return f"sha-256=:{base64.b64encode(digest).decode()}:"
