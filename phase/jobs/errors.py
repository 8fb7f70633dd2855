"""Errors of jobs, apart from the outcomes of a job that ran.

    JobError
    +-- EngineError              no engine here, or its worker process broke
    |   +-- UnsuitableProcessorError   no engine can run on this processor
    |   +-- CageError                  the kernel refuses a part of the cage; the policy demands all
    |   +-- SilentError                the process that forks workers has not answered in time
    +-- JobRefusedError          the job asks for more than its limits allow
    +-- ReceiptError
        +-- ReceiptFormatError     not a receipt at all
        +-- ReceiptSignatureError  not signed by the pinned key
        +-- ReceiptBindingError    a true receipt, of something else

A module that traps, exits with a code or meets a limit is not an error: that is an outcome, and its
receipt says so.
"""

from phase.errors import PhaseError


class JobError(PhaseError):
    """Root of every error about jobs and receipts."""


class EngineError(JobError):
    """There is no usable WebAssembly engine, or the worker broke without saying why."""


class UnsuitableProcessorError(EngineError):
    """The engine cannot run on this processor. All other parts of Phase can."""


class CageError(EngineError):
    """The kernel refuses a part of the worker's cage, and the policy forbids to run a job then."""


class SilentError(EngineError):
    """The process that forks workers has not answered in time."""


class JobRefusedError(JobError):
    """The job was not started, because it asks for more than its limits allow."""


class ReceiptError(JobError):
    """Root of every error about receipts."""


class ReceiptFormatError(ReceiptError):
    """The envelope does not hold a receipt that this version can read."""


class ReceiptSignatureError(ReceiptError):
    """The receipt is not signed by the pinned key."""


class ReceiptBindingError(ReceiptError):
    """The receipt is genuine, but for something else than was asked.

    Args:
        field: which binding failed, as named in the receipt's predicate.
        expected: what the caller asked for.
        found: what the receipt says.
    """

    def __init__(self, field: str, *, expected: str, found: str) -> None:
        self.field = field
        self.expected = expected
        self.found = found
        super().__init__(
            f"receipt is for another {field}: expected {expected!r}, found {found!r}",
            hint="It may be a replay; ask the node for the receipt of this job",
        )
