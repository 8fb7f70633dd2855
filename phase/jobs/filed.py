"""The files of a job, in its worker: it writes the inputs before the job, and reads the outputs after it."""

import errno
import os
import stat
from collections.abc import Callable

from phase.jobs import grant as grants
from phase.jobs import wire
from phase.jobs.grant import Grant
from phase.jobs.mounts import MEMORY


class FullError(Exception):
    """The inputs do not fit into the job's file system in memory."""


class Files:
    """The files of one job.

    Args:
        grant: what the job may have.
        request: what it wants: names for the directories, names and bytes of inputs, names of outputs.
    """

    def __init__(self, grant: Grant, request: bytes) -> None:
        self._grant = grant
        self._names, inputs, self._outputs = map(wire.unpack, wire.unpack(request))
        self._inputs = list(zip(inputs[::2], inputs[1::2], strict=True))
        self._memory = os.open(MEMORY, os.O_RDONLY | os.O_CLOEXEC) if grant.memory_bytes else -1

    def put(self) -> None:
        """Write the inputs.

        Raises:
            FullError: the quota is too small.
        """
        for name, data in self._inputs:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptor = os.open(os.path.join(f"{MEMORY}/input".encode(), name), flags, 0o444)
            try:
                wire.write_all(descriptor, data)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EFBIG):
                    raise FullError from error
                raise
            finally:
                os.close(descriptor)

    def directories(self) -> list[tuple[str, str, bool]]:
        """What the module sees: the path of each directory here and there, and whether it may write."""
        found = [
            (f"/{number}", name.decode(), writable)
            for number, (name, (_, writable)) in enumerate(
                zip(self._names, self._grant.directories, strict=True)
            )
        ]
        if self._grant.memory_bytes:
            for there, writable in ((grants.INPUT, False), (grants.OUTPUT, True), (grants.SCRATCH, True)):
                found.append((MEMORY + there, there, writable))
        return found

    def used(self) -> int:
        """Bytes of the file system in memory."""
        if self._memory < 0:
            return 0
        found = os.fstatvfs(self._memory)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def bring(self, send: Callable[[int, bytes], None], most: int) -> bool:
        """Hand over the outputs that are there. Only regular files are outputs.

        Args:
            send: takes the number of an output, and a part of it.
            most: bytes of all together.

        Returns:
            Whether they had no more than that.
        """
        for number, name in enumerate(self._outputs):
            try:
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                descriptor = os.open(os.path.join(f"{MEMORY}/output".encode(), name), flags)
            except OSError:
                continue
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                send(number, b"")
                while part := os.read(descriptor, wire.PART_BYTES):
                    most -= len(part)
                    if most < 0:
                        return False
                    send(number, part)
            os.close(descriptor)
        return True
