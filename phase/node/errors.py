"""What can go wrong in a node."""

from phase.node import NodeError as NodeError
from phase.peer.messages import Reason


class RefusedError(NodeError):
    """The node does not do what a client asks for; the client is told why.

    Args:
        reason: by name.
        detail: for people.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason.value}{detail and ': '}{detail}")


class StateError(NodeError):
    """The node's directory cannot be used."""
