"""What can go wrong in a node."""

from phase.errors import reason
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


def as_refusal(error: RefusedError | StateError | OSError) -> RefusedError:
    """What a client is told of an error for which it is refused, by whatever way it came.

    Args:
        error: of a system call: this node has no descriptor for the job, or no room on its disk.
    """
    match error:
        case RefusedError():
            return error
        case StateError():
            return RefusedError(Reason.INSUFFICIENT_RESOURCES, "this node cannot write its journal")
        case OSError():
            detail = f"this node has no room for it: {reason(error)}"
            return RefusedError(Reason.INSUFFICIENT_RESOURCES, detail)
