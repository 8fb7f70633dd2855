"""A gateway that keeps to docs/develop/gateway.md, and lies where it is told to.

It runs jobs in a real worker and signs real receipts. A lie is one word; `LIES` has them.
"""

import contextlib
import gzip
import hashlib
import http.server
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from phase.identity import Identity
from phase.jobs import receipt as receipts
from phase.jobs.limits import Limits
from phase.jobs.signed import run

NODE, OTHER, CLIENT = (Identity.from_seed(bytes([n]) * 32) for n in (11, 12, 13))
CLIENT_SEED = (bytes([13]) * 32).hex()
MOST = 4 << 20
_FIELDS = ("Phase-Key", "Phase-Time", "Phase-Nonce", "Phase-Signature")


class Liar(http.server.ThreadingHTTPServer):
    """The server; `lie` is empty for an honest one."""

    daemon_threads = True

    def __init__(self, lie: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lie = lie
        self.blobs: dict[str, bytes] = {}
        self.jobs: dict[str, tuple[bytes, bytes, bytes]] = {}
        self.nonces: set[str] = set()
        self.asked: list[str] = []
        self.closing = threading.Event()

    def handle_error(self, *_: object) -> None:
        """Clients that have heard enough hang up."""


@contextlib.contextmanager
def lying(lie: str = "") -> Iterator[tuple[str, Liar]]:
    """Such a gateway, and its address."""
    with Liar(lie) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Liar

    def log_message(self, *_: object) -> None:
        pass

    def handle_one_request(self) -> None:
        with contextlib.suppress(OSError):
            super().handle_one_request()

    def do_HEAD(self) -> None:
        self._answer()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(f"{self.command} {self.path}")
        if why := self._unsigned(body):
            return self._problem(401, "not authorised", why)
        if self.server.lie in _ANSWERS and (found := re.search(_ANSWERS[self.server.lie][0], self._what())):
            return _ANSWERS[self.server.lie][1](self) if found else None
        return self._honest(body)

    def _what(self) -> str:
        return f"{self.command} {self.path}"

    def _unsigned(self, body: bytes) -> str:
        """Why the request is not signed as the page says; empty if it is."""
        key, at, nonce, signature = (self.headers.get(name, "") for name in _FIELDS)
        lines = ["phase-request-v1", self.command, self.path, NODE.public_key, key, at, nonce]
        signed = "\n".join([*lines, hashlib.sha256(body).hexdigest()]).encode()
        if key != CLIENT.public_key or abs(int(at) - time.time()) > 300:
            return "another key, or a wrong time"
        if nonce in self.server.nonces or re.fullmatch("[0-9a-f]{32}", nonce) is None:
            return "a nonce that was used"
        self.server.nonces.add(nonce)
        try:
            VerifyKey(bytes.fromhex(key)).verify(signed, bytes.fromhex(signature))
        except BadSignatureError:
            return "the signature does not hold"
        return ""

    def _honest(self, body: bytes) -> None:
        blob = re.fullmatch("/v1/blobs/([0-9a-f]{64})", self.path)
        if blob and self.command == "HEAD":
            return self.send(200 if blob[1] in self.server.blobs else 404, b"")
        if blob and self.command == "PUT":
            assert hashlib.sha256(body).hexdigest() == blob[1]
            self.server.blobs[blob[1]] = body
            return self.send(201, b"")
        if self._what() == "POST /v1/jobs":
            return self._run(json.loads(body))
        job, part = re.fullmatch(r"/v1/jobs/([\w.:-]+)(/\w+)?(?:\?wait=\d+)?", self.path).groups()  # type: ignore[union-attr]
        if part is None:
            return self.status(job, "done")
        envelope, stdout, stderr = self.server.jobs[job]
        self.send(200, {"/receipt": envelope, "/stdout": stdout, "/stderr": stderr}[part])
        return None

    def _run(self, told: dict[str, Any]) -> None:
        lie = self.server.lie
        if lie == "forgetful" and len(self.server.asked) < 4:
            self.server.blobs.clear()
            return self._problem(404, "blob missing", "it had no room")
        stdin = self.server.blobs[told["stdin"]] if "stdin" in told else b""
        module = self.server.blobs[told["module"]]
        outcome = run(
            module + b"\0\1\0" if lie == "other module" else module,
            identity=OTHER if lie == "other key" else NODE,
            args=[*told["args"], "more"] if lie == "other args" else told["args"],
            env={**told["env"], "MORE": "1"} if lie == "other env" else told["env"],
            stdin={"other input": stdin[::-1], "a part of the input": stdin[:-1]}.get(lie, stdin),
            limits=Limits(**told["limits"] | ({"fuel": 5_000_000} if lie == "other limits" else {})),
            job_id="another" if lie == "other job" else told["job"],
            nonce="older" if lie == "older receipt" else told["nonce"],
        )
        stdout, stderr = outcome.execution.stdout, outcome.execution.stderr
        said = receipts.verify(
            outcome.receipt, key=OTHER.public_key if lie == "other key" else NODE.public_key
        )
        asked_by = OTHER.public_key if lie == "other requester" else CLIENT.public_key
        said = msgspec.structs.replace(
            said, requester=asked_by, seed=7 if lie == "other seed" else said.seed
        )
        if lie == "other node":
            said = msgspec.structs.replace(said, node=OTHER.public_key)
        if lie == "other files":
            said = msgspec.structs.replace(said, inputs={"1": receipts.Content("0" * 64, 0)})
        envelope = receipts.issue(said, OTHER if lie == "other key" else NODE)
        if lie == "changed receipt":
            envelope = envelope.replace(b'"payload":"eyJ', b'"payload":"eyI')
        self.server.jobs[told["job"]] = (
            envelope,
            b"x" + stdout if lie == "other output" else stdout,
            stderr,
        )
        self.status(told["job"], "queued", 202)
        return None

    def status(self, job: str, state: str, code: int = 200) -> None:
        """Answer with the status of a job."""
        told = {"type": "job", "job": job, "state": state, "detail": "a\x1b[31m reason", "kept": True}
        self.send(code, json.dumps(told).encode(), "application/json")

    def send(self, code: int, body: bytes, kind: str = "application/octet-stream", **more: str) -> None:
        """Answer."""
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in more.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _problem(self, code: int, reason: str, detail: str, **more: str) -> None:
        told = {"title": reason, "status": code, "reason": reason, "detail": detail}
        self.send(code, json.dumps(told).encode(), "application/problem+json", **more)

    def endless(self) -> None:
        """Bytes without end, of a length that is not told."""
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        while not self.server.closing.is_set():
            self.wfile.write(b" " * 65536)

    def drip(self) -> None:
        """A byte now and then."""
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        while not self.server.closing.wait(0.1):
            self.wfile.write(b" ")

    def drip_headers(self) -> None:
        """A header field now and then."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not self.server.closing.wait(0.1):
            self.wfile.write(b"X-More: 1\r\n")

    def many_headers(self) -> None:
        """Header fields without end."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not self.server.closing.is_set():
            self.wfile.write(b"X-More: " + b"1" * 1000 + b"\r\n")

    def silent(self) -> None:
        """Nothing at all."""
        self.server.closing.wait(60)

    def bomb(self) -> None:
        """A hundred kilobytes that unpack to a hundred megabytes."""
        self.send(200, gzip.compress(bytes(100 << 20), 1), Content_Encoding="gzip")

    def short(self) -> None:
        """Fewer bytes than were announced."""
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"{}")
        self.close_connection = True

    def elsewhere(self) -> None:
        """A redirection, to itself."""
        self.send(302, b"", Location="/secret")

    def away(self) -> None:
        """Cut off twice, as a node that is started anew; then busy; then as it should be."""
        asked = sum(each.startswith("GET") for each in self.server.asked)
        if asked > 3:
            self._honest(b"")
        elif asked == 3:
            self._problem(503, "stopping", "this node stops")
        else:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def gone(self) -> None:
        """Cut off, whenever it is asked."""
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def full(self) -> None:
        """A refusal with its reason."""
        self._problem(429, "queue full", "all 4 places are taken", Retry_After="7")


def _says(body: bytes) -> Callable[[_Handler], None]:
    return lambda handler: handler.send(200, body, "application/json")


def _state(name: str) -> Callable[[_Handler], None]:
    return lambda handler: handler.status(handler.path.split("/")[3].partition("?")[0], name)


_STATUS = "^GET /v1/jobs/[^/]+$"
#: A lie that is an answer: which request it answers, and how.
_ANSWERS: dict[str, tuple[str, Callable[[_Handler], None]]] = {
    "huge receipt": ("/receipt$", lambda handler: handler.send(200, b" " * (MOST + 1))),
    "endless receipt": ("/receipt$", _Handler.endless),
    "endless output": ("/stdout$", _Handler.endless),
    "endless errors": ("/stderr$", _Handler.endless),
    "packed output": ("/stdout$", _Handler.bomb),
    "endless status": (_STATUS, _Handler.endless),
    "slow status": (_STATUS, _Handler.drip),
    "slow receipt": ("/receipt$", _Handler.drip),
    "slow headers": (_STATUS, _Handler.drip_headers),
    "many headers": (_STATUS, _Handler.many_headers),
    "silent": ("^POST", _Handler.silent),
    "short receipt": ("/receipt$", _Handler.short),
    "elsewhere": (_STATUS, _Handler.elsewhere),
    "status of another job": (_STATUS, lambda handler: handler.status("another", "done")),
    "no JSON": (_STATUS, _says(b"<html>")),
    "no status": (_STATUS, _says(b"{}")),
    "name twice": (_STATUS, _says(b'{"job":"a","job":"a","state":"done"}')),
    "unknown state": (_STATUS, _state("finished")),
    "never ends": (_STATUS, _state("running")),
    "lost": (_STATUS, _state("lost")),
    "away": (_STATUS, _Handler.away),
    "gone": (_STATUS, _Handler.gone),
    "no receipt": ("/receipt$", lambda handler: handler.send(404, b"")),
    "empty receipt": ("/receipt$", lambda handler: handler.send(200, b"")),
    "full": ("^POST", _Handler.full),
}
