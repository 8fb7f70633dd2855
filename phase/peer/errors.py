"""What can go wrong between peers."""

from phase.errors import PhaseError


class PeerError(PhaseError):
    """Something between this node and another failed."""


class UnreachableError(PeerError):
    """Nobody with the wanted key answers at the addresses that are known."""


class RefusedError(PeerError):
    """The peer answered, and does not want this connection; the message has its reason.

    Args:
        what: the message.
        code: `phase.peer.transport.Code.REFUSED`, or `BUSY` if it may want one later.
    """

    def __init__(self, what: str, code: int) -> None:
        self.code = code
        super().__init__(what)


class ConnectionLostError(PeerError):
    """A connection is over: the peer closed it, is gone, or this side has closed it."""


class StreamResetError(PeerError):
    """The peer gave up one stream; the connection goes on.

    Args:
        code: what the peer's program said, 0 or more.
    """

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"the peer gave up the stream with code {code}")
