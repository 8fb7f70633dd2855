"""The names of the engine's traps: wasmtime/trap.h of `phase.jobs.location.VERSION`, in order."""

TRAPS = (
    "stack overflow",
    "memory out of bounds",
    "heap misaligned",
    "table out of bounds",
    "indirect call to null",
    "bad signature",
    "integer overflow",
    "integer division by zero",
    "bad conversion to integer",
    "unreachable",
    "interrupt",
    "out of fuel",
    "atomic wait on memory that is not shared",
    "null reference",
    "array out of bounds",
    "allocation too large",
    "cast failure",
    # From here to the last, only components and stack switching have them.
    "cannot enter component",
    "no async result",
    "unhandled tag",
    "continuation already consumed",
    "disabled opcode",
    "async deadlock",
    "cannot leave component",
    "cannot block a synchronous task",
    "invalid char",
    "string encoding not finished",
    "code units not equal",
    "pointer not aligned",
    "upper bits set",
    "string out of bounds",
    "list out of bounds",
    "invalid discriminant",
    "unaligned pointer",
    "task.cancel of a task that is not cancelled",
    "task.cancel or task.return twice",
    "subtask.cancel after the end",
    "task.return of an invalid type",
    "waitable-set.drop of a set with waiters",
    "subtask.drop before it is resolved",
    "thread.new-indirect of an invalid type",
    "thread.new-indirect of no function",
    "backpressure overflow",
    "unsupported callback code",
    "cannot resume thread",
    "concurrent operation on a future or stream",
    "reference count overflow",
    "stream operation too big",
    "waitable used both synchronously and asynchronously",
    "uncaught exception",
)
OUT_OF_FUEL = TRAPS.index("out of fuel")
UNREACHABLE = TRAPS.index("unreachable")


def name(code: int) -> str:
    """What a trap is called; a number for one that this list does not have."""
    return TRAPS[code] if code < len(TRAPS) else f"trap {code}"
