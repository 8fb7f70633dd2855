"""Limits for the open connections of one client, and of all clients together."""

import errno
import ipaddress
import json
from collections import Counter
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from phase.provider.together import Row

#: Errors of the system when there are too few descriptors or too little memory.
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
MAX_CONNECTIONS = 4096
MAX_PER_CLIENT = 256
#: Connections over the limit that are kept for a moment to send a refusal; further ones are just closed.
MAX_REFUSED = 256
#: TLS handshakes under way, of all clients together; further connections are just closed.
MAX_HANDSHAKES = 1024
#: Seconds that a refused client is asked to wait.
RETRY_SECONDS = 5


class Limits:
    """Counts open connections.

    Args:
        connections: limit for all clients together; further ones are refused with 503.
        per_client: limit for one client; further ones are refused with 429.
        row: also counts the connections of the other processes.
    """

    def __init__(
        self,
        connections: int = MAX_CONNECTIONS,
        per_client: int = MAX_PER_CLIENT,
        *,
        row: "Row | None" = None,
    ) -> None:
        self._row = row
        self._connections = connections
        self._per_client = per_client
        self._open: Counter[str] = Counter()
        self._total = 0
        self._held = 0
        #: Limit of this process alone; below `connections` if it has too few file descriptors.
        self.capacity = connections
        #: Limit for refused connections that are kept until they have read the refusal.
        self.holds = MAX_REFUSED
        #: Connections refused, by status.
        self.refused: Counter[int] = Counter()

    def fit(self, capacity: int) -> None:
        """Lower the limit to the number of connections that this process has file descriptors for.

        Args:
            capacity: that number.
        """
        self.capacity = min(self.capacity, capacity)
        self.holds = max(min(MAX_REFUSED, capacity // 4), 1)

    def enter(self, client: str) -> int:
        """Count a new connection; returns 0, or the status to refuse it with."""
        total, own = self._row.open(client) if self._row else (self._total, self._open[client])
        if total >= self._connections or self._total >= self.capacity:
            self.refused[503] += 1
            return 503
        if own >= self._per_client:
            self.refused[429] += 1
            return 429
        self._total += 1
        self._open[client] += 1
        if self._row:
            self._row.count(client, 1)
        return 0

    def leave(self, client: str) -> None:
        """A counted connection has ended."""
        self._total -= 1
        self._open[client] -= 1
        if not self._open[client]:
            del self._open[client]
        if self._row:
            self._row.count(client, -1)

    def hold(self) -> bool:
        """Keep a refused connection until it has read the refusal; whether there is room for that."""
        if self._held >= min(MAX_REFUSED, self.holds):
            return False
        self._held += 1
        return True

    def let_go(self) -> None:
        """A refused connection that was kept has ended."""
        self._held -= 1


def client_of(address: object) -> str:
    """The client that a connection counts for: an IPv4 address, or one customer's IPv6 network (a /64)."""
    return _client(str(address[0]) if isinstance(address, tuple) and address else "local")


@lru_cache(maxsize=MAX_CONNECTIONS)
def _client(text: str) -> str:
    try:
        ip = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text
    if ip.version == 4:
        return str(ip)
    return str(ip.ipv4_mapped or ipaddress.IPv6Network((int(ip) >> 64 << 64, 64)))


def refusal(status: int) -> bytes:
    """The complete answer for a connection over the limit; it ends the connection."""
    detail = {
        429: "this client has too many connections open",
        503: "this provider has too many connections open; ask another, or later",
    }[status]
    title = HTTPStatus(status).phrase
    body = json.dumps({"title": title, "status": status, "detail": detail})
    return (
        f"HTTP/1.1 {status} {title}\r\nContent-Type: application/problem+json\r\n"
        f"Content-Length: {len(body)}\r\nRetry-After: {RETRY_SECONDS}\r\nConnection: close\r\n\r\n{body}"
    ).encode()
