"""What can go wrong with a job before or beside running it.

    JobError
    +-- EngineError              no engine here, or its worker process broke
    |   +-- UnsuitableProcessorError   no engine can run on this processor
    |   +-- CageError                  the kernel refuses a part of the cage, and all of it is demanded
    +-- JobRefusedError          the job asks for more than its limits allow
    +-- ReceiptError
        +-- ReceiptFormatError     not a receipt at all
        +-- ReceiptSignatureError  not signed by the pinned key
        +-- ReceiptBindingError    a true receipt, of something else

A module that traps, exits with a code or meets a limit is no error: that is an outcome, and its
receipt says so.
"""

from phase.errors import PhaseError


class JobError(PhaseError):
    """Root of every error about jobs and receipts."""


class EngineError(JobError):
    """There is no usable WebAssembly engine, or the worker broke without saying why."""


class UnsuitableProcessorError(EngineError):
    """The engine cannot run on this processor; everything else of Phase can."""


class CageError(EngineError):
    """The kernel refuses a part of the worker's cage, and the policy is to run no job then."""


class JobRefusedError(JobError):
    """The job was not started, because it asks for more than its limits allow."""


class ReceiptError(JobError):
    """Root of what can be wrong with a receipt."""


class ReceiptFormatError(ReceiptError):
    """The envelope holds no receipt this version can read."""


class ReceiptSignatureError(ReceiptError):
    """The receipt is not signed by the pinned key."""


class ReceiptBindingError(ReceiptError):
    """The receipt is genuine and says something else than what was asked.

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
