"""A control group (cgroup v2) for each worker, in a directory that is delegated for it: `PHASE_CGROUP`.

A limit of the process counts the memory that it maps. A group also counts memory that the kernel holds for
the process: page tables, pipes, shared memory. And it ends all its processes at once. Source: Linux,
admin-guide/cgroup-v2.
"""

import contextlib
import errno
import os
import time

#: Bytes of a worker before its job, and of the kernel for it, with room to spare.
_ENGINE = 192 << 20
#: Seconds to wait until the last process has left a group, and between two checks.
_PATIENCE, _PAUSE = 1.0, 0.005


class Group:
    """The group of one worker.

    Args:
        within: a directory of cgroup v2 that this process may write to.
        worker: number of the process that goes into it.

    Raises:
        OSError: it is not such a directory, or its groups have no memory controller.
    """

    def __init__(self, within: str, worker: int) -> None:
        self._path = os.path.join(within, f"worker-{worker}")
        os.mkdir(self._path)
        try:
            self._write("memory.oom.group", "1")
            with contextlib.suppress(FileNotFoundError):  # a kernel without swap
                self._write("memory.swap.max", "0")
            self._write("cgroup.procs", str(worker))
        except OSError:
            os.rmdir(self._path)
            raise

    def limit(self, *, memory_bytes: int, compile_bytes: int) -> None:
        """Limit the memory of all processes in it.

        Args:
            memory_bytes: of the job.
            compile_bytes: of the compiler.
        """
        self._write("memory.max", str(_ENGINE + memory_bytes + compile_bytes))

    def starved(self) -> bool:
        """Whether the kernel has ended a process in it that met the limit."""
        try:
            with open(os.path.join(self._path, "memory.events")) as file:
                counts = dict(line.split() for line in file)
        except (OSError, ValueError):
            return False
        return counts.get("oom_kill", "0") != "0"

    def close(self) -> None:
        """End the processes in it, and remove it."""
        with contextlib.suppress(OSError):  # before Linux 5.14 it cannot
            self._write("cgroup.kill", "1")
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                os.rmdir(self._path)
                return
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > until:
                    return
            time.sleep(_PAUSE)

    def _write(self, name: str, text: str) -> None:
        # Never create the file: only the kernel makes files here.
        descriptor = os.open(os.path.join(self._path, name), os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)
