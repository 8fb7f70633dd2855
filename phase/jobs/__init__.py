"""WebAssembly jobs in worker processes, with enforced limits and signed receipts.

For the command line, the node and peers. Nothing here imports wasmtime into the caller:
the engine runs in a worker process that can be killed (`phase.jobs.worker`).

`__getattr__` loads the public names on first use, because the worker imports this package too
and must not load modules that only its parent needs: `typing` alone takes a tenth of its start.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from phase.jobs.errors import JobError as JobError
    from phase.jobs.flow import Descriptor as Descriptor
    from phase.jobs.flow import Streams as Streams
    from phase.jobs.limits import Limits as Limits
    from phase.jobs.receipt import Receipt as Receipt
    from phase.jobs.runner import Execution as Execution
    from phase.jobs.runner import Job as Job
    from phase.jobs.runner import execute as execute
    from phase.jobs.signed import Outcome as Outcome
    from phase.jobs.signed import run as run

__all__ = [
    "Descriptor",
    "Execution",
    "Job",
    "JobError",
    "Limits",
    "Outcome",
    "Receipt",
    "Streams",
    "execute",
    "run",
]

_HOME = {
    "Descriptor": "flow",
    "Streams": "flow",
    "Execution": "runner",
    "Job": "runner",
    "JobError": "errors",
    "Limits": "limits",
    "Outcome": "signed",
    "Receipt": "receipt",
    "execute": "runner",
    "run": "signed",
}


def __getattr__(name: str) -> "Any":
    if name not in _HOME:
        raise AttributeError(name)
    import importlib

    found = globals()[name] = getattr(importlib.import_module(f"phase.jobs.{_HOME[name]}"), name)
    return found
