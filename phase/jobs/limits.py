"""The limits of a job."""

from typing import Annotated

import msgspec

from phase.jobs.binary import COMPILE_BYTES

#: JSON numbers above this lose digits in many readers (RFC 8259, section 6).
MAX_INTEGER = 2**53 - 1
MIB = 1 << 20

Fuel = Annotated[int, msgspec.Meta(ge=1, le=MAX_INTEGER)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
Memory = Annotated[int, msgspec.Meta(ge=0, le=4096 * MIB)]
Size = Annotated[int, msgspec.Meta(ge=0, le=1024 * MIB)]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one job. Part of its receipt.

    Args:
        fuel: engine instructions, roughly; comparable only within one engine version.
        wall_seconds: from the moment when the worker has the job until the last byte of output is taken. It
            includes compiling, waiting for input and waiting for a slow reader of the output.
        memory_bytes: linear memories, tables and the garbage collector's heap of the module, together.
        output_bytes: stdout and stderr together, and all output files together.
        stdin_bytes: input given to the module: standard input, and its input files together.
        module_bytes: the module itself.
        scratch_bytes: room for files in memory, in `/tmp`; all files in memory count as memory.
        compile_bytes: memory of the compiler, at most half of the machine's. With the default, a module gets
            the part that its code needs; a higher limit is used as it is.
    """

    fuel: Fuel = 20_000_000_000
    wall_seconds: Seconds = 30.0
    memory_bytes: Memory = 256 * MIB
    output_bytes: Size = 16 * MIB
    stdin_bytes: Size = 16 * MIB
    module_bytes: Size = 32 * MIB
    compile_bytes: Memory = COMPILE_BYTES
    scratch_bytes: Size = 0
