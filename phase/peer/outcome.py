"""How the end of a connection is told to whoever uses it."""

from phase.errors import printable
from phase.peer.errors import ConnectionLostError, PeerError, RefusedError
from phase.peer.transport import MAX_REASON, Code


def over(code: int, reason: str) -> PeerError:
    """The error for a connection that the peer has closed.

    Args:
        code: as the peer sent it.
        reason: as the peer sent it, or what the transport says; from others, so it is made safe to print.
    """
    text = printable(reason)[:MAX_REASON].strip()
    if code in (Code.REFUSED, Code.BUSY):
        return RefusedError(f"the peer refused: {text or Code(code).name.lower()}", code)
    return ConnectionLostError(f"the peer closed the connection{text and ': '}{text}")


def cut(reason: str) -> bytes:
    """A reason as it is sent to the peer: UTF-8, at most `MAX_REASON` bytes."""
    return reason.encode(errors="replace")[:MAX_REASON].decode(errors="ignore").encode()
