"""Fetches small files from the first provider that answers."""

import re
from collections.abc import Sequence
from time import monotonic

from phase.errors import printable
from phase.fetch.errors import ExhaustedError, NoSuchFileError, ProtocolError, ProviderFailedError
from phase.fetch.http import Connection, Response, parse_url
from phase.fetch.way import DIRECT, PROXY_SECONDS, Way

#: Parts of a web page that are not shown.
_WORDS = re.compile(r"<(?:script|style)\b[^<]*+|<[^<>]*+>?")
#: Seconds that one provider may take for one small file before the next is asked.
ATTEMPT_SECONDS = 20.0
MAX_PROVIDERS = 16


class Client:
    """Gets small files, bounded in size and time, and stays with a provider that works.

    Args:
        urls: the providers, in the order to try them.
        timeout: seconds for all requests together, from now on.
        way: how to get to them.
    """

    def __init__(self, urls: Sequence[str], *, timeout: float, way: Way = DIRECT) -> None:
        self._deadline = monotonic() + timeout
        # Through Tor, a connection alone may take longer than an answer does elsewhere.
        self._attempt = ATTEMPT_SECONDS + (PROXY_SECONDS if way.proxy else 0.0)
        self._usable = [Connection(parse_url(url), way) for url in dict.fromkeys(urls[:MAX_PROVIDERS])]
        self._failures: list[str] = []
        self._last: ProviderFailedError | None = None

    @property
    def current(self) -> str:
        """The provider that is asked first; empty if none is left."""
        return self._usable[0].url.text if self._usable else ""

    def get(self, path: str, max_bytes: int) -> bytes:
        """Get a file.

        Args:
            path: starts with a slash.
            max_bytes: refuse a longer one before reading it.

        Raises:
            NoSuchFileError: every provider that answers says that it has no such file.
            ExhaustedError: no provider answers; the message names each with its reason.
        """
        missing: NoSuchFileError | None = None
        for connection in list(self._usable):
            try:
                deadline = min(self._deadline, monotonic() + self._attempt)
                answer = connection.get(path, deadline=deadline)
                body = _not_a_page(connection, path, answer, max_bytes)
            except NoSuchFileError as error:
                missing = missing or error
            except ProviderFailedError as error:
                connection.close()
                self._failures.append(str(error))
                self._last = error
                self._usable.remove(connection)
            else:
                if self._usable[0] is not connection:
                    # The next files must fit this one, so the same provider is asked first.
                    self._usable.remove(connection)
                    self._usable.insert(0, connection)
                return body
        if missing is not None:
            raise missing
        raise ExhaustedError(
            f"{path} could not be fetched from any provider: {'; '.join(self._failures) or 'none given'}"
        ) from self._last

    def get_metadata(self, name: str, max_bytes: int) -> bytes:
        """Get a metadata file by its name, as `phase.trust.refresh` expects; otherwise like `get`.

        Raises:
            phase.trust.NotFoundError: no provider that answers has it.
        """
        try:
            return self.get(f"/metadata/{name}", max_bytes)
        except NoSuchFileError as error:
            # Imported here: only a program that refreshes needs trust, and has imported it already.
            from phase.trust import errors

            raise errors.NotFoundError(error.what) from error

    def close(self) -> None:
        """Close every connection."""
        for connection in self._usable:
            connection.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _not_a_page(connection: Connection, path: str, answer: Response, max_bytes: int) -> bytes:
    """The body of an answer, unless it is a web page, as networks send that want a log-in first.

    Raises:
        ProtocolError: it is a web page; the message gives its type and its first words.
    """
    kind = answer.content_type.partition(";")[0].strip().lower()
    page = kind in ("text/html", "application/xhtml+xml")
    try:
        body = answer.read(max_bytes)
    except ProtocolError:
        if not page:
            raise
        body = b"<"  # too long to be read
    # Look at the content as well: some servers call everything a page, and some give no type.
    if not body.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        return body
    connection.close()
    words = printable(" ".join(_WORDS.sub(" ", body[:2000].decode("utf-8", "replace")).split()))[:60]
    raise ProtocolError(
        connection.url.text,
        f"it answers GET {path} with a web page ({printable(kind) or 'of no type'}: {words!r})",
        hint="Does this network want a log-in first, or is there another server at that address?",
    )
