"""What can go wrong between a program and the nodes that it gives jobs to.

    ClientError
    +-- RejectedError   the node refuses, and says why
    +-- NotRunError     the node took the job and did not run it: cancelled, handed back, or it could not
    +-- JobLostError    whether the job ran is not known
    +-- NotKeptError    the job has ended, and the node has no result to fetch
    +-- UntrueError     the node's receipt does not prove what was asked

What a module does, also a trap or a limit, is no error: it is in the result. Errors of the network are
`phase.peer.errors.PeerError`.
"""

from phase.errors import PhaseError, printable
from phase.peer.messages import Reason, State


class ClientError(PhaseError):
    """Root of the errors of clients."""


_HINTS = {
    Reason.NOT_AUTHORISED: "Its owner can allow your key: `phase node --allow KEY`; `phase init` shows it.",
    Reason.QUEUE_FULL: "Try again later, or another node.",
    Reason.QUOTA: "Wait for your other jobs, or cancel them.",
    Reason.DUPLICATE: "Give the job another id; `phase job result` has what became of this one.",
    Reason.STOPPING: "Try another node.",
}


class RejectedError(ClientError):
    """The node refuses.

    Args:
        reason: by name.
        detail: the node's words.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        self.reason, self.detail = reason, printable(detail)
        words = f"the node refuses: {reason.value}"
        if self.detail and reason is not Reason.NOT_AUTHORISED:
            words += f" ({self.detail})"
        super().__init__(words, hint=_HINTS.get(reason, ""))


class NotRunError(ClientError):
    """The node took the job, and it did not run.

    Args:
        state: `cancelled`, `returned` or `failed`.
        detail: the node's words.
    """

    def __init__(self, state: State, detail: str = "") -> None:
        self.state, self.detail = state, printable(detail)
        super().__init__(f"the job did not run: {state.value}{self.detail and ': '}{self.detail}")


class JobLostError(ClientError):
    """The node or the way to it ended while it had the job: whether it ran is not known.

    Args:
        job: its id.
        why: what happened.
    """

    def __init__(self, job: str, why: str) -> None:
        self.job = job
        super().__init__(
            f"job {job} is lost: {printable(why)}",
            hint=f"It may run, or have run; to ask its node: `phase job status --node KEY@HOST:PORT {job}`.",
        )


class NotKeptError(ClientError):
    """The job has ended, and the node has no result of it to fetch: it was not detached, or made room.

    Args:
        job: its id.
        why: the node's words.
    """

    def __init__(self, job: str, why: str) -> None:
        super().__init__(
            f"job {job} has ended, and the node does not keep its result: {printable(why)[:200]}"
        )


class UntrueError(ClientError):
    """The receipt does not prove what was asked; nothing of the result is to be believed."""
