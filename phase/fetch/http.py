"""A strict HTTP/1.1 GET over one keep-alive connection, which is all that a client of providers needs.

Why not `http.client`: its import brings `ssl`, `email` and some forty more modules. In the seed, under
emulation, that takes seconds and megabytes to parse a dozen header lines; and it has no limit for the total
time. Features that are not needed are refused with an error that names them: redirects to another server,
content encodings, TLS (signatures make the trust, and the seed's clock may be wrong).

Source: RFC 9110 and RFC 9112.
"""

import socket
from collections.abc import Sequence
from threading import Thread
from time import monotonic, sleep

from phase.errors import printable
from phase.fetch.body import Response
from phase.fetch.errors import NoSuchFileError, ProtocolError, ProviderFailedError, StalledError
from phase.fetch.reach import Segments, explained
from phase.fetch.url import Url, parse_url, redirected
from phase.fetch.way import DIRECT, PROXY_SECONDS, Way, WayError, stay_near, through

__all__ = ["Connection", "Response", "Url", "parse_head", "parse_url"]

#: Limit for status line and headers together, bytes.
MAX_HEAD = 16_384
MAX_HEADERS = 64
#: Limit for the addresses of one host name that are tried.
MAX_ADDRESSES = 4
#: Seconds for a connection, and for a complete head after the request.
CONNECT_SECONDS = 5.0
HEAD_SECONDS = 15.0
#: Limits for one request: heads that only announce the answer (1xx), and redirects on the same server.
MAX_INTERIM = 4
MAX_REDIRECTS = 3
#: Status for a file that the server does not have; object stores answer 403 if they do not list their names.
_MISSING = (403, 404, 410)
#: What a server says that has too much to do, and how often and for how long it is waited for.
_BUSY = (429, 503)
MAX_PAUSES, MAX_PAUSE = 3, 5.0
_RECEIVE = 1 << 16
#: Kept while this program runs, since the next request to a host may have a new connection.
_segments = Segments()


class Connection:
    """One connection to one provider, opened by the first request. Not for two threads at a time.

    Args:
        url: the provider.
        way: how to get there.
    """

    def __init__(self, url: Url, way: Way = DIRECT) -> None:
        self.url = url
        self._way = way
        self._socket: socket.socket | None = None
        self.buffer = bytearray()
        self._closed = False

    def get(
        self, path: str, *, deadline: float, first: int | None = None, last: int | None = None
    ) -> "Response":
        """Ask for a file, or for the bytes `first` to `last` of it (both counted in).

        A kept connection that the provider has closed meanwhile is opened again, once.

        A server without ranges answers with the whole file: look at the answer's `partial`.

        Args:
            path: starts with a slash; already escaped.
            deadline: `time.monotonic()` when the whole answer, body included, must have arrived.
            first: offset of the first byte wanted.
            last: offset of the last byte wanted.

        Raises:
            ProviderFailedError: no usable answer; the connection is closed.
        """
        target, redirects, pauses = self.url.prefix + path, 0, 0
        while True:
            kept = self._socket is not None
            try:
                status, headers = self._ask(target, deadline, first, last)
                if status in (301, 302, 303, 307, 308) and redirects < MAX_REDIRECTS:
                    target = self._follow(status, headers)
                    redirects += 1
                    continue
                if status in _BUSY and pauses < MAX_PAUSES and self._pause(headers, deadline):
                    pauses += 1
                    continue
                return self._judge(path, status, headers, deadline, first, last)
            except NoSuchFileError:
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
        self.buffer.clear()
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

    def _ask(
        self, target: str, deadline: float, first: int | None, last: int | None
    ) -> tuple[int, dict[str, str]]:
        if self._closed:
            raise StalledError(self.url.text, "stopped")
        connection = self._socket or self._connect(deadline)
        ranged = "" if first is None else f"Range: bytes={first}-{last}\r\n"
        question = (
            f"GET {target} HTTP/1.1\r\nHost: {self.url.authority}\r\n"
            f"User-Agent: phase\r\nAccept-Encoding: identity\r\n{ranged}\r\n"
        )
        try:
            connection.settimeout(max(min(HEAD_SECONDS, deadline - monotonic()), 0.001))
            connection.sendall(question.encode("ascii"))
        except TimeoutError:
            raise StalledError(self.url.text, "it does not take the request") from None
        except OSError as error:
            raise _GoneError(f"the connection broke: {error.strerror or error}") from error
        until = min(deadline, monotonic() + HEAD_SECONDS)
        for _ in range(MAX_INTERIM):
            status, headers = self._head(connection, until)
            if not 100 <= status < 200 or status == 101:
                return status, headers
        raise ProtocolError(self.url.text, f"it announces its answer more than {MAX_INTERIM - 1} times")

    def _pause(self, headers: dict[str, str], deadline: float) -> bool:
        """Wait as long as a busy server says in Retry-After; whether to ask it again.

        One that names a date, a longer time or no time is not asked again: others may have it sooner.
        """
        after = headers.get("retry-after", "")
        if not (after.isascii() and after.isdecimal() and len(after) <= 3):
            return False
        end = monotonic() + int(after)
        if int(after) > MAX_PAUSE or end >= deadline:
            return False
        # Its body is of no interest.
        self.close()
        while (left := end - monotonic()) > 0:
            if self._closed:
                raise StalledError(self.url.text, "stopped")
            sleep(min(left, 0.1))
        return True

    def _follow(self, status: int, headers: dict[str, str]) -> str:
        """The target on this server that a redirect names. The body of the redirect is not read."""
        location = headers.get("location", "")
        target = redirected(self.url, location)
        if target is None:
            raise ProtocolError(
                self.url.text,
                f"it redirects ({status}) to {printable(location[:200]) or 'nothing'}, "
                "which is not on the same server",
                hint="Name that server as the provider, if you know it; a network may want a log-in first.",
            )
        if _length(headers) != 0 or "transfer-encoding" in headers:
            self.close()
        return target

    def _connect(self, deadline: float) -> socket.socket:
        way = self._way
        if way.refusal:
            raise ProviderFailedError(self.url.text, way.refusal, hint=way.hint)
        if way.proxy is None:
            return self._reach(self.url.host, self.url.port, min(CONNECT_SECONDS, deadline - monotonic()))
        limit = min(PROXY_SECONDS, deadline - monotonic())
        end = monotonic() + limit
        connection = self._reach(*way.proxy, limit)
        try:
            through(connection, self.url.host, self.url.port, end)
        except TimeoutError:
            raise StalledError(self.url.text, f"Tor does not get there within {limit:.0f} s") from None
        except (WayError, OSError) as error:
            raise ProviderFailedError(self.url.text, f"not by Tor: {error}") from error
        return connection

    def _reach(self, host: str, port: int, limit: float) -> socket.socket:
        """Connect to a host within a time, seconds."""
        if limit <= 0:
            raise StalledError(self.url.text, "no time is left to connect")
        end = monotonic() + limit
        problem: Exception | None = None
        try:
            found = _resolve(host, port, limit, names=not self._way.lonely)
        except TimeoutError:
            raise StalledError(
                self.url.text, f"no name server answers for {host} within {limit:.0f} s"
            ) from None
        except (OSError, ValueError) as error:
            found, problem = [], error
        addresses = found[:MAX_ADDRESSES]
        for position, (family, kind, protocol, _, address) in enumerate(addresses):
            # Each address gets its share of the time left: the first may drop every packet.
            left = (end - monotonic()) / (len(addresses) - position)
            try:
                # Not `create_connection`: `abort` must reach a socket that is still connecting.
                self._socket = connection = socket.socket(family, kind, protocol)
                connection.settimeout(max(left, 0.001))
                _segments.ask(connection, host)
                if self._way.near:
                    stay_near(connection)
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
        why, hint = explained(problem, host, self._way.lonely)
        if (host, port) == self._way.proxy:
            why, hint = f"Tor's proxy {host}:{port}: {why}", "Does Tor run there, at that address?"
        raise ProviderFailedError(self.url.text, f"no connection: {why}", hint=hint) from problem

    def _head(self, connection: socket.socket, deadline: float) -> tuple[int, dict[str, str]]:
        buffer = self.buffer
        while (end := buffer.find(b"\r\n\r\n")) < 0:
            if len(buffer) > MAX_HEAD:
                raise ProtocolError(self.url.text, f"its headers have more than {MAX_HEAD} bytes")
            try:
                left = deadline - monotonic()
                if left <= 0:
                    raise TimeoutError
                connection.settimeout(left)
                block = connection.recv(_RECEIVE)
            except TimeoutError:
                if not buffer:
                    _segments.stalled(self.url.host)
                raise StalledError(self.url.text, "its headers do not arrive") from None
            except OSError as error:
                raise _GoneError(f"the connection broke: {error.strerror or error}") from error
            if not block:
                if buffer:
                    raise ProtocolError(self.url.text, "it closed the connection inside its headers")
                raise _GoneError("it closed the connection without an answer")
            buffer += block
        if end > MAX_HEAD:
            raise ProtocolError(self.url.text, f"its headers have more than {MAX_HEAD} bytes")
        head = bytes(buffer[:end])
        del buffer[: end + 4]
        try:
            return parse_head(head)
        except ValueError as error:
            raise ProtocolError(self.url.text, str(error)) from None

    def _judge(
        self,
        path: str,
        status: int,
        headers: dict[str, str],
        deadline: float,
        first: int | None,
        last: int | None,
    ) -> Response:
        """Check that the answer fits the request. Otherwise the connection is closed."""
        connection = self._socket
        if connection is None:
            raise StalledError(self.url.text, "stopped")
        url = self.url.text
        if status in _MISSING:
            # Its body is not read and may have any size, so the connection cannot be kept.
            length = _length(headers)
            if length is not None and length <= MAX_HEAD and "transfer-encoding" not in headers:
                unread = Response(
                    self, connection, headers, length=length, partial=False, total=None, deadline=deadline
                )
                unread.read(MAX_HEAD)
            else:
                self.close()
            raise NoSuchFileError(url, f"it has no {path}" + (f" ({status})" if status != 404 else ""))
        if 300 <= status < 400:
            raise ProtocolError(url, f"it answers {status} to GET {path}, and redirects further and further")
        if status != 200 and (status != 206 or first is None):
            what = printable(headers.get("content-type", "")[:40])
            raise ProtocolError(url, f"it answers {status} to GET {path}" + (f" ({what})" if what else ""))
        _check_framing(url, headers)
        partial, total = status == 206, None
        length = _length(headers)
        if partial and first is not None and last is not None:
            total = _part(url, path, headers, length, first, last)
        return Response(
            self, connection, headers, length=length, partial=partial, total=total, deadline=deadline
        )


_Address = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]


def _resolve(host: str, port: int, seconds: float, *, names: bool = True) -> Sequence[_Address]:
    """Addresses of a host, within a time: getaddrinfo(3) has no limit, and a name server may be silent.

    Raises:
        TimeoutError: no name server has answered within `seconds`.
        OSError, ValueError: there is no such host, or the text cannot be the name of one.
    """
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        # A name; an address needs neither a name server nor a thread.
        if not names:
            raise
    answers: list[Sequence[_Address] | Exception] = []

    def ask() -> None:
        try:
            answers.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:  # any error is raised in the caller's thread
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
            raise ValueError(f"it sends an invalid header line: {line[:60]!r}")
        name = name.lower()
        value = value.strip(" \t")
        if name in ("content-length", "content-range", "transfer-encoding") and name in headers:
            raise ValueError(f"it sends {name} twice")
        headers[name] = value
    return int(code), headers


def _check_framing(url: str, headers: dict[str, str]) -> None:
    """Refuse a body whose bytes would not be those of the file, or whose end is not clear."""
    encoding = headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise ProtocolError(
            url,
            f"it sends an encoded answer ({printable(encoding[:40])}) that was not asked for",
            hint="Switch compression off there for /metadata and /blobs.",
        )
    transfer = headers.get("transfer-encoding")
    if transfer is not None and transfer.lower() != "chunked":
        raise ProtocolError(url, f"it sends its answer as {transfer[:40]!r}, which was not asked for")
    if transfer is not None and "content-length" in headers:
        raise ProtocolError(url, "it sends its answer in chunks and gives a length, too")
    if "content-length" in headers and _length(headers) is None:
        raise ProtocolError(url, f"it says that its answer has {headers['content-length'][:40]!r} bytes")


def _part(
    url: str, path: str, headers: dict[str, str], length: int | None, first: int, last: int
) -> int | None:
    """The length of the whole file, if the answer is the part that was asked for and says it."""
    unit, _, rest = headers.get("content-range", "").partition(" ")
    span, _, whole = rest.partition("/")
    if unit != "bytes" or span != f"{first}-{last}" or length not in (None, last - first + 1):
        raise ProtocolError(
            url,
            f"asked for bytes {first}-{last} of {path} it sends {length} bytes "
            f"as {headers.get('content-range', 'nothing')[:80]!r}",
        )
    return int(whole) if whole.isascii() and whole.isdecimal() and len(whole) < 20 else None


def _length(headers: dict[str, str]) -> int | None:
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else None
