"""Answers to plain requests, which are nearly all that machines send: GET metadata, a blob, or a range.

A request is plain when its whole head came in one piece, one expression matches it, and no field of it
changes the answer but Range and Connection. Then a few lines answer it, where aiohttp's objects for a
request and an answer take ten times as long. aiohttp answers every other request.
"""

import re
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple, cast

from aiohttp.http import SERVER_SOFTWARE
from aiohttp.web import Response

from phase.provider import blobs, ranges
from phase.provider.documents import MAX_FILES, Document
from phase.provider.opened import Open, Opened
from phase.provider.store import Store, look_of

#: The longest document that is written without a look at whether its reader takes it, bytes. With its head
#: it is below 64 KiB, where a transport asks for a pause: aiohttp, which may be next, would not know of it.
MAX_BODY = 60 << 10
#: Routes, as aiohttp calls them.
METADATA, BLOB = "/metadata/{file}", "/blobs/sha256/{hex}"
_MAX_HEAD = 2048
_HEAD = re.compile(
    rb"GET (/metadata/([A-Za-z0-9][A-Za-z0-9._-]{0,127})|/blobs/sha256/([0-9a-f]{64})) HTTP/1\.1\r\n"
    rb"((?:[A-Za-z-]{1,20}: ?[\x20-\x7e]{0,256}\r\n){1,8})\r\n"
)
_HOST = re.compile(r"[A-Za-z0-9._:\[\]-]{1,256}")
#: The fields that a plain request may have, once each.
_FIELDS = frozenset({"host", "user-agent", "accept", "accept-encoding", "range", "connection"})


class Request(NamedTuple):
    """A plain request.

    Attributes:
        path: of the file.
        file: name of the metadata; empty for a blob.
        digest: hash of the blob in hex; empty for metadata.
        range: the field, or None.
        agent: the field User-Agent, or nothing.
        close: whether the connection ends with the answer.
    """

    path: str
    file: str
    digest: str
    range: str | None
    agent: str
    close: bool


class Answer(NamedTuple):
    """An answer to a plain request.

    Attributes:
        route: for the metrics.
        status: of HTTP.
        head: all of it; the document's body, too.
        length: bytes of the body.
        part: the open file of a blob, which the answer must give back; None for a document.
        first: where in the file the body begins, bytes.
    """

    route: str
    status: int
    head: bytes
    length: int
    part: Open | None = None
    first: int = 0


class Plain:
    """Answers plain requests.

    Args:
        store: the repository.
        opened: opens its blobs.
    """

    def __init__(self, store: Store, opened: Opened) -> None:
        self._store = store
        self.opened = opened

    def answer(self, request: Request, now: float) -> Answer | None:
        """Answer a request; None where aiohttp must, such as with a problem of a blob.

        Args:
            request: parsed.
            now: Unix seconds.
        """
        if request.digest:
            return self._blob(request, now)
        document = self._store.current().metadata.get(request.file)
        if document is None:
            return _answered(404, _missing(), request, now)
        if len(document.body) > MAX_BODY:
            return None
        return _answered(200, _document(document), request, now)

    def _blob(self, request: Request, now: float) -> Answer | None:
        digest = request.digest
        lengths = self._store.lengths(digest)
        if lengths is None:
            return None
        try:
            part = self.opened.take(digest)
        except OSError:
            return None
        length = part.found.st_size
        choice = ranges.select(request.range, None, "", length)
        wrong = length not in lengths or self._store.damaged.get(digest) == look_of(part.found)
        if wrong or not length or isinstance(choice, ranges.Unsatisfiable):
            self.opened.give_back(part)
            return None
        if isinstance(choice, ranges.Part):
            status, first, count = 206, choice.first, choice.length
            more = f"Content-Range: bytes {first}-{first + count - 1}/{length}\r\n"
        else:
            status, first, count, more = 200, 0, length, ""
        head = f"{_blob_head(digest, status)}{more}Content-Length: {count}\r\n{_end(request, now)}"
        return Answer(BLOB, status, head.encode(), count, part, first)


def parse(data: bytes) -> Request | None:
    """Read a request; None where it is not a plain one, or not just one."""
    # The cache keeps what it is asked for, so nothing long may reach it.
    return _parsed(data) if len(data) <= _MAX_HEAD else None


@lru_cache(maxsize=1024)
def _parsed(data: bytes) -> Request | None:
    found = _HEAD.fullmatch(data)
    if found is None:
        return None
    path, file, digest, lines = (group.decode() if group else "" for group in found.groups())
    fields: dict[str, str] = {}
    for line in lines.splitlines():
        name, _, value = line.partition(":")
        name = name.lower()
        if name not in _FIELDS or name in fields:
            return None
        fields[name] = value.strip()
    connection = fields.get("connection", "keep-alive").lower()
    if connection not in ("close", "keep-alive") or not _HOST.fullmatch(fields.get("host", "")):
        return None
    return Request(
        path, file, digest, fields.get("range"), fields.get("user-agent", ""), connection == "close"
    )


def _answered(status: int, prepared: tuple[str, bytes], request: Request, now: float) -> Answer:
    head, body = prepared
    return Answer(METADATA, status, f"{head}{_end(request, now)}".encode() + body, len(body))


def _end(request: Request, now: float) -> str:
    """The last fields of a head, which differ from answer to answer."""
    close = "Connection: close\r\n" if request.close else ""
    return f"{close}Date: {_date(int(now))}\r\nServer: {SERVER_SOFTWARE}\r\n\r\n"


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


@lru_cache(maxsize=MAX_FILES)
def _document(document: Document) -> tuple[str, bytes]:
    return _prepared(blobs.document_answer(document))


@lru_cache(maxsize=1)
def _missing() -> tuple[str, bytes]:
    return _prepared(blobs.no_metadata())


def _prepared(answer: Response) -> tuple[str, bytes]:
    """Head, up to its length, and body of an answer that aiohttp would send."""
    body = cast(bytes, answer.body)
    return f"{_lines(answer.status, dict(answer.headers))}Content-Length: {len(body)}\r\n", body


@lru_cache(maxsize=256)
def _blob_head(digest: str, status: int) -> str:
    return _lines(status, blobs.blob_headers(digest, immutable=True) | {"Content-Type": blobs.OCTETS})


def _lines(status: int, headers: dict[str, str]) -> str:
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{fields}"
