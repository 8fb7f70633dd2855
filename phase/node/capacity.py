"""What a node takes: how much at a time, and which jobs."""

import os
import platform

import msgspec

from phase import arch
from phase.jobs.limits import MIB, Limits
from phase.node.errors import RefusedError
from phase.node.kept import JOB_BYTES
from phase.peer.messages import Offer, Reason

#: What can run a job here.
RUNTIMES = ("wasi-preview1",)
#: Longest input that is held in memory before a job starts, bytes.
MAX_WHOLE_INPUT = 64 * MIB
#: Of the machine's memory that is free at the start, the share that jobs may have together.
_SHARE = 0.75


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of a node.

    Args:
        slots: jobs at a time.
        queue: jobs that may wait.
        client_jobs: jobs that one client may have here at a time, waiting ones included.
        memory_bytes: most that one job may ask for.
        wall_seconds: the same.
    """

    slots: int = 2
    queue: int = 64
    client_jobs: int = 64
    memory_bytes: int = 1024 * MIB
    wall_seconds: float = 3600.0

    @classmethod
    def of_this_machine(cls, **given: int | float | None) -> "Capacity":
        """The limits that suit this machine, where nothing else is given.

        Args:
            given: fields; None for those to find out.
        """
        slots = int(given.get("slots") or len(os.sched_getaffinity(0)))
        # One with the usual limits must be welcome also where it could not run beside another.
        memory = max(int(available_bytes() * _SHARE) // slots, Limits().memory_bytes)
        found: dict[str, int | float | None] = {"slots": slots, "memory_bytes": min(memory, 4096 * MIB)}
        found |= {name: value for name, value in given.items() if value is not None}
        return msgspec.convert(found, cls)

    def check(self, offer: Offer) -> None:
        """Refuse a job that this node can never run.

        Raises:
            RefusedError: it asks for another machine, or for more than there is.
        """
        here = machine()
        if offer.arch is not None and offer.arch != here:
            raise RefusedError(Reason.ARCH_MISMATCH, f"this node is {here}")
        if offer.runtime not in RUNTIMES:
            raise RefusedError(Reason.RUNTIME_NOT_SUPPORTED, f"this node has {', '.join(RUNTIMES)}")
        if offer.seed is not None and (offer.input is None or offer.input > MAX_WHOLE_INPUT):
            raise RefusedError(
                Reason.INVALID_REQUEST,
                f"the input of a deterministic job comes before it starts, {MAX_WHOLE_INPUT} bytes at most",
            )
        limits = offer.limits
        given = sum(each.length for each in offer.inputs.values())
        for what, asked, most in (
            ("the module", offer.module.length, limits.module_bytes),
            ("the input", offer.input or 0, limits.stdin_bytes),
            ("all input files", given, min(limits.stdin_bytes, MAX_WHOLE_INPUT)),
        ):
            if asked > most:
                raise RefusedError(Reason.INVALID_REQUEST, f"{what} has {asked} bytes; its limit is {most}")
        output = limits.output_bytes if offer.detached else 0
        bounds: tuple[tuple[str, float, float], ...] = (
            ("memory", limits.memory_bytes, self.memory_bytes),
            ("wall_seconds", limits.wall_seconds, self.wall_seconds),
            ("module_bytes", limits.module_bytes, Limits().module_bytes),
            ("output_bytes of a detached job", output, JOB_BYTES),
        )
        for name, wanted, there in bounds:
            if wanted > there:
                raise RefusedError(
                    Reason.INSUFFICIENT_RESOURCES,
                    f"the limit {name} is {wanted:,.0f}; this node has {there:,.0f}",
                )


def machine() -> str:
    """This machine's architecture."""
    return arch.canonical(platform.machine())


def available_bytes() -> int:
    """Memory that can be had without swapping, bytes. Source: proc(5), MemAvailable."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for text in file:
                if text.startswith("MemAvailable:"):
                    return int(text.split()[1]) << 10
    except (OSError, ValueError):
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
