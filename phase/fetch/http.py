"""A strict HTTP/1.1 GET over one keep-alive connection: all that fetching from a provider takes.

Why not `http.client`: importing it brings `ssl`, `email` and some forty modules more. In the seed,
under emulation, that is seconds and megabytes, for parsing a dozen header lines; and it bounds no
total time. What is not needed is refused here by name: redirects, chunked bodies, content
encodings, TLS (the signatures carry the trust, and the seed's clock may be wrong).

Source: RFC 9110 and RFC 9112.
"""

import socket
from collections.abc import Sequence
from threading import Thread
from time import monotonic
from typing import NamedTuple

from phase.fetch.errors import NotFoundError, ProtocolError, ProviderFailedError, StalledError, UrlError

#: Bytes of status line and headers together.
MAX_HEAD = 16_384
MAX_HEADERS = 64
#: Addresses of one host name that are tried.
MAX_ADDRESSES = 4
#: Seconds for a connection, and for a complete head after the question.
CONNECT_SECONDS = 5.0
HEAD_SECONDS = 15.0
#: A body must bring this many bytes in each such window, seconds; the last one may be shorter.
WINDOW_SECONDS = 10.0
WINDOW_BYTES = 16_384
_RECEIVE = 1 << 16


class Url(NamedTuple):
    """A provider's address, taken apart."""

    text: str
    host: str
    port: int
    #: Path in front of the provider's own, without a slash at the end.
    prefix: str

    @property
    def authority(self) -> str:
        """What stands in the Host field."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == 80 else f"{host}:{self.port}"


def parse_url(text: str) -> Url:
    """Take a provider's address apart.

    Args:
        text: `http://HOST[:PORT][/PREFIX]`; HOST may be an IPv6 address in brackets.

    Raises:
        UrlError: it is something else.
    """
    problem = UrlError(f"{text[:200]!r} is not a provider's address", hint="Give it as http://HOST:PORT.")
    if not text.startswith("http://") or len(text) > 512:
        raise problem
    if not text.isascii() or any(c <= " " or c in '\x7f?#@\\"<>' for c in text):
        raise problem
    authority, slash, path = text.removeprefix("http://").partition("/")
    if authority.startswith("["):
        host, bracket, rest = authority[1:].partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            raise problem
        port = rest[1:]
        colon = bool(rest)
    else:
        host, sep, port = authority.partition(":")
        colon = bool(sep)
    if not host or (colon and not (port.isdecimal() and len(port) <= 5 and 0 < int(port) < 65_536)):
        raise problem
    return Url(text, host, int(port) if colon else 80, (slash + path).rstrip("/"))


class Connection:
    """One connection to one provider, opened when first asked. Not for two threads at a time.

    Args:
        url: the provider.
    """

    def __init__(self, url: Url) -> None:
        self.url = url
        self._socket: socket.socket | None = None
        self._buffer = bytearray()
        self._closed = False

    def get(
        self, path: str, *, deadline: float, first: int | None = None, last: int | None = None
    ) -> "Response":
        """Ask for a file, or for the bytes `first` to `last` of it (both counted in).

        A kept connection that the provider has closed meanwhile is opened again, once.

        Args:
            path: starts with a slash; already escaped.
            deadline: `time.monotonic()` when the whole answer, body included, must have arrived.
            first: offset of the first byte wanted.
            last: offset of the last byte wanted.

        Raises:
            ProviderFailedError: no usable answer; the connection is closed.
        """
        while True:
            kept = self._socket is not None
            try:
                return self._ask(path, deadline, first, last)
            except NotFoundError:
                raise  # an answer like any other; the connection is still good
            except _GoneError as error:
                self.close()
                if not kept or self._closed:
                    raise ProtocolError(self.url.text, str(error)) from None
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Close; a later `get` opens a new one."""
        connection, self._socket = self._socket, None
        self._buffer.clear()
        if connection is not None:
            connection.close()

    def abort(self) -> None:
        """Make a `get` or read in another thread fail at once, and every later one."""
        self._closed = True
        connection = self._socket
        if connection is not None:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # it was gone already

    def _ask(self, path: str, deadline: float, first: int | None, last: int | None) -> "Response":
        if self._closed:
            raise StalledError(self.url.text, "stopped")
        connection = self._socket or self._connect(deadline)
        ranged = "" if first is None else f"Range: bytes={first}-{last}\r\n"
        question = (
            f"GET {self.url.prefix}{path} HTTP/1.1\r\nHost: {self.url.authority}\r\n"
            f"User-Agent: phase\r\nAccept-Encoding: identity\r\n{ranged}\r\n"
        )
        try:
            connection.settimeout(max(min(HEAD_SECONDS, deadline - monotonic()), 0.001))
            connection.sendall(question.encode("ascii"))
        except TimeoutError:
            raise StalledError(self.url.text, "it does not take the request") from None
        except OSError as error:
            raise _GoneError(f"the connection broke: {error.strerror or error}") from error
        status, headers = self._head(connection, min(deadline, monotonic() + HEAD_SECONDS))
        return self._judge(connection, path, status, headers, deadline, first, last)

    def _connect(self, deadline: float) -> socket.socket:
        limit = min(CONNECT_SECONDS, deadline - monotonic())
        if limit <= 0:
            raise StalledError(self.url.text, "no time is left to connect")
        end = monotonic() + limit
        problem: Exception | None = None
        try:
            found = _resolve(self.url.host, self.url.port, limit)
        except (OSError, UnicodeError) as error:
            found, problem = [], error
        for family, kind, protocol, _, address in found[:MAX_ADDRESSES]:
            # Not `create_connection`: `abort` must reach a socket that is still connecting.
            self._socket = connection = socket.socket(family, kind, protocol)
            connection.settimeout(max(end - monotonic(), 0.001))
            try:
                connection.connect(address)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                problem = error
                self.close()
            if self._closed:
                raise StalledError(self.url.text, "stopped")
            if self._socket is not None:
                return connection
        if isinstance(problem, TimeoutError):
            raise StalledError(self.url.text, f"no connection within {limit:.0f} s") from None
        raise ProviderFailedError(
            self.url.text,
            f"no connection: {getattr(problem, 'strerror', None) or problem}",
            hint="Is `phase serve` running there?",
        ) from problem

    def _head(self, connection: socket.socket, deadline: float) -> tuple[int, dict[str, str]]:
        buffer = self._buffer
        while (end := buffer.find(b"\r\n\r\n")) < 0:
            if len(buffer) > MAX_HEAD:
                raise ProtocolError(self.url.text, f"its headers are longer than {MAX_HEAD} bytes")
            try:
                left = deadline - monotonic()
                if left <= 0:
                    raise TimeoutError
                connection.settimeout(left)
                block = connection.recv(_RECEIVE)
            except TimeoutError:
                raise StalledError(self.url.text, "its headers do not arrive") from None
            except OSError as error:
                raise _GoneError(f"the connection broke: {error.strerror or error}") from error
            if not block:
                if buffer:
                    raise ProtocolError(self.url.text, "it closed the connection inside its headers")
                raise _GoneError("it closed the connection without an answer")
            buffer += block
        if end > MAX_HEAD:
            raise ProtocolError(self.url.text, f"its headers are longer than {MAX_HEAD} bytes")
        head = bytes(buffer[:end])
        del buffer[: end + 4]
        try:
            return parse_head(head)
        except ValueError as error:
            raise ProtocolError(self.url.text, str(error)) from None

    def _judge(
        self,
        connection: socket.socket,
        path: str,
        status: int,
        headers: dict[str, str],
        deadline: float,
        first: int | None,
        last: int | None,
    ) -> "Response":
        """Is this an answer to what was asked? Everything else closes the connection."""
        url = self.url.text
        if status == 404:
            # Its body is of no interest, and of no known size: do not keep the connection for it.
            length = _length(headers)
            if length is not None and length <= MAX_HEAD and "transfer-encoding" not in headers:
                Response(self, connection, length, None, deadline, headers).read(MAX_HEAD)
            else:
                self.close()
            raise NotFoundError(url, f"it has no {path}")
        if 300 <= status < 400:
            raise ProtocolError(url, f"it answers with a redirect ({status}), which is not followed")
        if status != (200 if first is None else 206):
            raise ProtocolError(url, f"it answers {status} to GET {path}")
        if "transfer-encoding" in headers:
            raise ProtocolError(url, "it sends its answer in chunks, without saying how long it is")
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise ProtocolError(url, "it sends an encoded answer that was not asked for")
        length = _length(headers)
        if length is None:
            raise ProtocolError(url, "it does not say how long its answer is")
        total = None
        if first is not None and last is not None:
            unit, _, rest = headers.get("content-range", "").partition(" ")
            span, _, whole = rest.partition("/")
            if unit != "bytes" or span != f"{first}-{last}" or length != last - first + 1:
                raise ProtocolError(
                    url,
                    f"asked for bytes {first}-{last} of {path} it sends {length} bytes "
                    f"as {headers.get('content-range', 'nothing')[:80]!r}",
                )
            total = int(whole) if whole.isascii() and whole.isdecimal() and len(whole) < 20 else None
        return Response(self, connection, length, total, deadline, headers)


class Response:
    """An answer whose body is still to be read, exactly `length` bytes of it."""

    def __init__(
        self,
        connection: Connection,
        source: socket.socket,
        length: int,
        total: int | None,
        deadline: float,
        headers: dict[str, str],
    ) -> None:
        self.length = length
        #: Length of the whole file where the answer is a part of it and says so.
        self.total = total
        self._connection = connection
        self._socket = source
        self._left = length
        self._deadline = deadline
        self._keep = headers.get("connection", "").lower() != "close"
        self._window = (monotonic() + WINDOW_SECONDS, WINDOW_BYTES)
        # One short timeout for every receive: setting it each time would double the system calls.
        source.settimeout(max(min(1.0, deadline - monotonic()), 0.001))
        if not length:
            self._done()

    def read_into(self, target: memoryview) -> None:
        """Fill `target` from the body.

        Raises:
            ProviderFailedError: the body ends early or does not come; the connection is closed.
        """
        if len(target) > self._left:
            raise ValueError("asked for more than the answer holds")
        try:
            self._fill(target)
        except BaseException:
            self._connection.close()
            raise
        self._left -= len(target)
        if not self._left:
            self._done()

    def read(self, max_bytes: int) -> bytes:
        """Read the body to its end.

        Raises:
            ProtocolError: it is longer than `max_bytes`; nothing was read.
            ProviderFailedError: it does not arrive.
        """
        if self.length > max_bytes:
            self._connection.close()
            raise ProtocolError(
                self._connection.url.text, f"its answer has {self.length} bytes, allowed are {max_bytes}"
            )
        body = bytearray(self.length)
        if body:
            self.read_into(memoryview(body))
        return bytes(body)

    def _fill(self, target: memoryview) -> None:
        url = self._connection.url.text
        buffer = self._connection._buffer
        filled = min(len(buffer), len(target))
        if filled:
            target[:filled] = buffer[:filled]
            del buffer[:filled]
        while filled < len(target):
            try:
                got = self._socket.recv_into(target[filled:])
            except TimeoutError:
                got = -1
            except OSError as error:
                raise ProtocolError(url, f"the connection broke: {error.strerror or error}") from error
            if got == 0:
                missing = self._left - filled
                raise ProtocolError(url, f"it ended its answer {missing} of {self.length} bytes early")
            self._watch(max(got, 0))
            filled += max(got, 0)

    def _watch(self, got: int) -> None:
        """Stop a provider that keeps the connection open without being of use."""
        now = monotonic()
        if now >= self._deadline:
            raise StalledError(self._connection.url.text, "the time was up before its answer was complete")
        end, missing = self._window
        missing -= got
        if now < end:
            self._window = (end, missing)
        elif missing > 0:
            raise StalledError(
                self._connection.url.text,
                f"it sends less than {WINDOW_BYTES} bytes in {WINDOW_SECONDS:.0f} s",
            )
        else:
            self._window = (now + WINDOW_SECONDS, WINDOW_BYTES)

    def _done(self) -> None:
        # Bytes after the end answer no question; such a connection is not to be asked again.
        if not self._keep or self._connection._buffer:
            self._connection.close()


_Address = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]


def _resolve(host: str, port: int, seconds: float) -> Sequence[_Address]:
    """Addresses of a host; getaddrinfo(3) itself knows no limit, and a name server may be silent.

    Raises:
        TimeoutError: nobody has said within `seconds`.
        OSError, UnicodeError: there is no such host, or this cannot be one.
    """
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        pass  # a name; an address needs nobody else's answer, and no thread
    answers: list[Sequence[_Address] | Exception] = []

    def ask() -> None:
        try:
            answers.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answers.append(error)

    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if not answers:
        raise TimeoutError
    if isinstance(answers[0], Exception):
        raise answers[0]
    return answers[0]


class _GoneError(Exception):
    """The connection ended before the first byte of an answer."""


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Read a status line and header fields.

    Args:
        head: everything before the empty line.

    Returns:
        The status and the fields, names in lower case.

    Raises:
        ValueError: it is not HTTP/1.x, or says one thing twice.
    """
    lines = head.decode("latin-1").split("\r\n")
    version, _, rest = lines[0].partition(" ")
    code = rest[:3]
    known = version in ("HTTP/1.1", "HTTP/1.0")
    if not known or len(code) != 3 or not (code.isascii() and code.isdecimal()):
        raise ValueError(f"it does not speak HTTP/1.1: {lines[0][:60]!r}")
    if len(lines) > MAX_HEADERS + 1:
        raise ValueError(f"it sends more than {MAX_HEADERS} header fields")
    headers: dict[str, str] = {}
    if version == "HTTP/1.0":
        headers["connection"] = "close"
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name.strip() != name or "\n" in line or "\r" in line:
            raise ValueError(f"it sends a header that is none: {line[:60]!r}")
        name = name.lower()
        value = value.strip(" \t")
        if name in ("content-length", "content-range", "transfer-encoding") and name in headers:
            raise ValueError(f"it sends {name} twice")
        headers[name] = value
    return int(code), headers


def _length(headers: dict[str, str]) -> int | None:
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else None
