"""Messages of jobs between peers: JSON objects, told apart by `type`.

A client opens a stream and sends one of `Offer`, `Fetch`, `StatusAsked`, `Cancel`, `List`, `Describe`. An
offer is followed at once by its `Request`, and by its input if that is known and short (`EARLY_INPUT`). The
client sends the module, if the node has not got it, and other input only once the answer says `accepted`.

    Offer, Request, stdin ->     <- Accepted, or Rejected and the end
    module, files that are wanted ->
    stdin … ->                   <- Progress, stdout, stderr …
                                 <- files, receipt, Result

A client must not ask for anything that a node would silently leave out, so a node refuses fields that it
does not know. A client ignores fields that it does not know. The schemas are in `phase/peer/schemas`.
"""

from enum import StrEnum
from types import UnionType
from typing import Annotated, Literal, TypeVar

import msgspec

from phase.foreign import MalformedError, read_json
from phase.jobs.grant import MAX_FILES
from phase.jobs.limits import MAX_INTEGER, Limits
from phase.jobs.receipt import Attempt, Content, Hex256
from phase.jobs.status import Status
from phase.peer.framing import Kind, ProtocolError, pack

#: Most bytes of an offer, and of every other question but a request.
MAX_OFFER = 64 << 10
#: Input up to so many bytes follows the request at once, and is in memory before the job is queued.
EARLY_INPUT = 64 << 10
#: Jobs that a list holds at most: the newest.
MAX_LISTED = 256
#: Characters of a reason or a detail.
MAX_TEXT = 500

JobId = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[0-9A-Za-z._:-]*$(?!\n)")]
Nonce = Annotated[str, msgspec.Meta(max_length=128, pattern=r"^[0-9A-Za-z._:+/=-]*$(?!\n)")]
FileName = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"^[^/\x00-\x1f]*$(?!\n)")]
Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
Word = Annotated[str, msgspec.Meta(max_length=64)]
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]
#: A moment: seconds since the epoch, by the clock of the node.
Moment = Annotated[float, msgspec.Meta(ge=0)]


class Reason(StrEnum):
    """Why a node refuses."""

    INSUFFICIENT_RESOURCES = "insufficient resources"
    ARCH_MISMATCH = "arch mismatch"
    RUNTIME_NOT_SUPPORTED = "runtime not supported"
    QUEUE_FULL = "queue full"
    QUOTA = "quota used up"
    INVALID_REQUEST = "invalid request"
    NOT_AUTHORISED = "not authorised"
    DUPLICATE = "duplicate"
    STOPPING = "stopping"
    UNKNOWN_JOB = "unknown job"


class State(StrEnum):
    """How far a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    #: It ran, and there is a receipt, whatever the module made of it.
    DONE = "done"
    #: It was cancelled before it ran.
    CANCELLED = "cancelled"
    #: The node stopped before it ran: submit it elsewhere, or again.
    RETURNED = "returned"
    #: There is no receipt, and it may have run: the node ended while it had it, or could not record its end.
    LOST = "lost"
    #: The node could not run it: no engine, no memory, no room.
    FAILED = "failed"


#: States after which nothing changes.
FINAL = frozenset({State.DONE, State.CANCELLED, State.RETURNED, State.LOST, State.FAILED})


class _Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    """A message of a client."""


class Offer(_Asked, frozen=True, kw_only=True, tag="offer"):
    """A job, as far as a node must know it to take or refuse it.

    Args:
        job: the job's id, which this client has not used at this node before.
        nonce: for the receipt.
        module: hash and length of the module.
        limits: of the job.
        arch: what the node must be; null for any.
        runtime: what must run it.
        seed: of a deterministic job, whose input is then of known length; null for any other.
        attempt: how often this client has had this job run, with this time; under ids of its own each.
        detached: whether the node keeps the result until the client comes for it. A job that is not detached
            is cancelled when its client leaves.
        input: bytes of standard input, which follow; null for a stream of unknown length.
        inputs: files that the module finds in `/input`: hash and length, by their names.
        outputs: names of the files in `/output` that are brought back.
    """

    job: JobId
    nonce: Nonce = ""
    module: Content
    limits: Limits = msgspec.field(default_factory=Limits)
    arch: Literal["x86_64", "arm64"] | None = None
    runtime: Word = "wasi-preview1"
    seed: Count | None = None
    attempt: Attempt = 1
    detached: bool = False
    input: Count | None = 0
    inputs: Annotated[dict[FileName, Content], msgspec.Meta(max_length=MAX_FILES)] = msgspec.field(
        default_factory=dict
    )
    outputs: Annotated[tuple[FileName, ...], msgspec.Meta(max_length=MAX_FILES)] = ()


class Request(_Asked, frozen=True, kw_only=True, tag="request"):
    """The rest of a job that was offered on this stream.

    Args:
        args: arguments after the program's name.
        env: the whole environment.
    """

    args: tuple[str, ...] = ()
    env: dict[str, str] = msgspec.field(default_factory=dict)


class Fetch(_Asked, frozen=True, kw_only=True, tag="fetch"):
    """Ask for output, receipt and result of a detached job; waits for its end."""

    job: JobId


class StatusAsked(_Asked, frozen=True, kw_only=True, tag="status"):
    """Ask how far a job is."""

    job: JobId


class Cancel(_Asked, frozen=True, kw_only=True, tag="cancel"):
    """Ask for the end of a job. On the stream of its offer, `job` may be left out."""

    job: JobId | None = None


class List(_Asked, frozen=True, kw_only=True, tag="list"):
    """Ask for the jobs of this client."""


class Describe(_Asked, frozen=True, kw_only=True, tag="describe"):
    """Ask what the node is and what is free."""


class _Said(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """A message of a node."""


class Accepted(_Said, frozen=True, kw_only=True, tag="accepted"):
    """The node takes the job.

    Args:
        send_module: whether the module must be sent; otherwise the node has it.
        send_files: names of the input files that must be sent.
        waiting: jobs that are queued before it.
    """

    send_module: bool = False
    send_files: tuple[str, ...] = ()
    waiting: Count = 0


class Rejected(_Said, frozen=True, kw_only=True, tag="rejected"):
    """The node refuses.

    Args:
        reason: by name.
        detail: for people.
    """

    reason: Reason
    detail: Text = ""


class Progress(_Said, frozen=True, kw_only=True, tag="progress"):
    """How far the job of this stream is."""

    state: State


class Result(_Said, frozen=True, kw_only=True, tag="result"):
    """The end of a job. In the state `done`, the receipt came before it.

    Args:
        job: its id.
        state: one of the final ones.
        status: how it ended, if it is done. The receipt alone proves it.
        detail: for people.
        waited_ms: from acceptance to the start.
    """

    job: JobId
    state: State
    status: Status | None = None
    detail: Text = ""
    waited_ms: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class JobStatus(_Said, frozen=True, kw_only=True, tag="job"):
    """How far one job is.

    Args:
        job: its id.
        state: its state.
        module: hash of its module, hex.
        accepted: when the node took it.
        ended: when it ended; null before.
        status: how it ended, if it is done.
        kept: whether its output and receipt can be fetched.
        detail: for people.
    """

    job: JobId
    state: State
    module: Hex256
    accepted: Moment
    ended: Moment | None = None
    status: Status | None = None
    kept: bool = False
    detail: Text = ""


class Jobs(_Said, frozen=True, kw_only=True, tag="jobs"):
    """The jobs of a client, the newest first."""

    jobs: Annotated[tuple[JobStatus, ...], msgspec.Meta(max_length=MAX_LISTED)]


class Description(_Said, frozen=True, kw_only=True, tag="description"):
    """What a node is, and what of it is free.

    Args:
        node: its key.
        arch: its architecture.
        runtimes: what it can run.
        engine: name and version.
        processors: of the machine.
        memory_bytes: most that one job may have.
        slots: jobs at a time.
        free: of them, now.
        queued: jobs that wait.
        queue: jobs that may wait.
        version: of Phase.
    """

    node: Hex256
    arch: Word
    runtimes: Annotated[tuple[Word, ...], msgspec.Meta(max_length=16)]
    engine: Word
    processors: Count
    memory_bytes: Count
    slots: Count
    free: Count
    queued: Count
    queue: Count
    version: Word


Question = Offer | Fetch | StatusAsked | Cancel | List | Describe
Answer = Accepted | Rejected | Progress | Result | JobStatus | Jobs | Description
Message = Question | Request | Answer
T = TypeVar("T")


def frame(message: Message) -> bytes:
    """A message as one packed frame."""
    return pack(Kind.MESSAGE, msgspec.json.encode(message))


def read(data: bytes, kind: type[T] | UnionType) -> T:
    """Read a message of one kind, or of a union of kinds.

    Args:
        data: the content of its frame, whose length is bounded.
        kind: the type.

    Raises:
        ProtocolError: it is no such message; says where it differs.
    """
    try:
        value: T = read_json(data, kind)
        return value
    except MalformedError as error:
        raise ProtocolError(f"not a message that is expected here: {error}") from error


def schemas() -> dict[str, dict[str, object]]:
    """The published JSON schemas (draft 2020-12), by file name."""
    asked = (Offer, Request, Fetch, StatusAsked, Cancel, List, Describe)
    said = (Accepted, Rejected, Progress, Result, JobStatus, Jobs, Description)
    return {f"{each.__struct_config__.tag}-v1.json": schema(each) for each in (*asked, *said)}


def schema(kind: type[msgspec.Struct], name: str = "") -> dict[str, object]:
    """The JSON schema of one type.

    Args:
        kind: the type.
        name: of the file, without its version; the type's tag when left out.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"https://phase.dev/schemas/{name or kind.__struct_config__.tag}-v1.json",
        **msgspec.json.schema(kind),
    }
