"""What every transport between peers does.

A transport has one identity. It connects to peers and is connected to; each end of a connection knows the
other's key for sure. A connection carries many streams of bytes, both ways, each with its own flow control.

Rules that every transport keeps (`tests/phase/peer/test_contract.py` runs them against each):

- `open` announces nothing: the peer's `accept` gives a stream once something was sent on it, or it was
  finished.
- `send` waits while the peer does not read: what is on the way is bounded.
- Closing a connection throws away what is on the way. Finish a stream, and wait for the peer's
  answer, first.
- When a connection is over, each call on it and its streams raises `ConnectionLostError`; `RefusedError`
  where the peer closed it with `Code.REFUSED` or `Code.BUSY`. Both messages hold the peer's reason.
"""

from enum import IntEnum
from typing import Literal, Protocol

import msgspec

from phase.peer.address import Address

__all__ = ["Address", "Code", "Connection", "Path", "Stream", "Transport"]

#: Limit for the reason with which a connection is closed, bytes of UTF-8; longer ones are cut.
MAX_REASON = 512


class Code(IntEnum):
    """Why a connection or a stream is closed."""

    DONE = 0
    #: The peer may not do this here.
    REFUSED = 1
    #: Not now: a limit is reached.
    BUSY = 2
    #: The node stops.
    STOPPING = 3
    #: The peer does not keep to the protocol.
    PROTOCOL = 4
    #: The peer has not been heard for too long.
    SILENT = 5


class Path(msgspec.Struct, frozen=True):
    """The way that a connection takes now.

    Attributes:
        kind: directly by UDP, over a relay, or within this process.
        remote: the peer's `HOST:PORT`, or the relay's URL.
        rtt_seconds: the round-trip time as the transport estimates it.
    """

    kind: Literal["direct", "relay", "memory"]
    remote: str
    rtt_seconds: float


class Stream(Protocol):
    """Bytes both ways. One task may send while another receives; not two of a kind."""

    async def send(self, data: bytes) -> None:
        """Send bytes of any number; waits while too much is on the way.

        Raises:
            StreamResetError: the peer gave the stream up.
            ConnectionLostError, RefusedError: the connection is over.
        """

    async def receive(self, size: int) -> bytes:
        """Receive at least one byte and at most `size`; `b""` when the peer has finished.

        Raises:
            StreamResetError: the peer gave the stream up.
            ConnectionLostError, RefusedError: the connection is over.
        """

    async def finish(self) -> None:
        """Send nothing more. The peer gets all that was sent, then `b""`.

        Raises:
            StreamResetError: the peer gave the stream up.
            ConnectionLostError, RefusedError: the connection is over.
        """

    async def reset(self, code: int) -> None:
        """Give up both directions at once; what is on the way is thrown away. Never raises.

        Args:
            code: for the peer, 0 or more.
        """


class Connection(Protocol):
    """A connection to one peer."""

    @property
    def peer(self) -> str:
        """The peer's key, proven: 64 hex digits."""

    async def open(self) -> Stream:
        """Open a stream; waits while as many are open as the peer allows.

        Raises:
            ConnectionLostError, RefusedError: the connection is over.
        """

    async def accept(self) -> Stream:
        """The next stream that the peer has opened.

        Raises:
            ConnectionLostError, RefusedError: the connection is over.
        """

    def path(self) -> Path | None:
        """The way that it takes now; None if that is not known."""

    async def closed(self) -> str:
        """Wait until the connection is over, and say why."""

    async def close(self, code: int = Code.DONE, reason: str = "") -> None:
        """Close it, at once. Never raises; a second call does nothing.

        Args:
            code: for the peer.
            reason: for the peer, and for whoever reads its log.
        """


class Transport(Protocol):
    """One identity on the network."""

    @property
    def key(self) -> str:
        """The own key, 64 hex digits."""

    def address(self) -> Address:
        """Where peers find this transport, as far as it knows."""

    async def connect(self, address: Address, timeout: float) -> Connection:
        """Connect to a peer.

        Args:
            address: its key, and hints.
            timeout: seconds.

        Raises:
            UnreachableError: nobody with that key answered in time.
            RefusedError: the peer, or what answers in its place, refused.
        """

    async def accept(self) -> Connection:
        """The next connection from a peer, whose key is proven. What it may do, the caller decides.

        Raises:
            ConnectionLostError: the transport is closed.
        """

    async def close(self) -> None:
        """Close all connections, and stop. Never raises."""
