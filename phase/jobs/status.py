"""How a job ended: one tagged value, the same in the runner, in receipts and between peers."""

from typing import Annotated, Literal

import msgspec

#: The largest exit code: WASI has 32 bits for it.
MAX_CODE = 2**32 - 1

Code = Annotated[int, msgspec.Meta(ge=0, le=MAX_CODE)]
Signal = Annotated[int, msgspec.Meta(ge=0, le=255)]


class Exited(msgspec.Struct, frozen=True, tag="exited", tag_field="kind"):
    """The module ended by itself, with this exit code."""

    code: Code


class Trapped(msgspec.Struct, frozen=True, tag="trapped", tag_field="kind"):
    """The module ran, and the engine stopped it for this reason."""

    reason: str


class LimitHit(msgspec.Struct, frozen=True, tag="limit", tag_field="kind"):
    """The module met a limit and was stopped."""

    limit: Literal["fuel", "wall", "memory", "output", "stdin"]


class Rejected(msgspec.Struct, frozen=True, tag="rejected", tag_field="kind"):
    """The module never ran: it is not WebAssembly, or asks for something outside WASI preview 1 and 0.2."""

    reason: str


class Killed(msgspec.Struct, frozen=True, tag="killed", tag_field="kind"):
    """The worker process died during the job, by this signal (0: it ended without a result)."""

    signal: Signal
    reason: str = ""


Status = Exited | Trapped | LimitHit | Rejected | Killed


def explain(status: Status) -> str:
    """Say in one line how a job ended."""
    match status:
        case Exited(code=code):
            return f"exited with code {code}"
        case Trapped(reason=reason):
            return f"trapped: {reason}"
        case LimitHit(limit=limit):
            return f"stopped at its {limit} limit"
        case Rejected(reason=reason):
            return f"rejected: {reason}"
        case Killed(signal=0, reason=reason):
            return "not finished: its worker ended without a result" + (f": {reason}" if reason else "")
        case Killed(signal=signal, reason=reason):
            return f"ended by signal {signal}" + (f": {reason}" if reason else "")
