"""Finds the engine's shared library without importing the engine."""

import os
import sys

#: The wasmtime release whose C API `phase.jobs.engine` is written against; pinned in pyproject.toml.
VERSION = "50.0.1"


def machine() -> str:
    """The processor's name as wasmtime's wheels spell it: `x86_64` or `aarch64`."""
    name = os.uname().machine
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


def check_processor(cpuinfo: str = "/proc/cpuinfo") -> None:
    """Refuse a processor that the engine's library cannot run on.

    The wheel for x86_64 is built for SSE4.1 and does not ask: on an older processor it dies of an illegal
    instruction. Many hypervisors' default model (qemu64, kvm64) is older. The wheel for arm64 needs nothing
    beyond ARMv8.0.

    Args:
        cpuinfo: the kernel's list of processors; if it cannot be read, nothing is refused.

    Raises:
        UnsuitableProcessorError: it lacks SSE4.1.
    """
    from phase.jobs.errors import UnsuitableProcessorError

    if machine() != "x86_64":
        return
    try:
        with open(cpuinfo, "rb") as file:
            first = file.read(8192)
    except OSError:
        return
    flags = next((line for line in first.split(b"\n") if line.startswith(b"flags")), b"")
    if flags and b"sse4_1" not in flags.split():
        raise UnsuitableProcessorError(
            "this processor has no SSE4.1, which the WebAssembly engine needs",
            hint="Give a virtual machine the host's processor model, or any since 2008 (Penryn, x86-64-v2)",
        )


def engine_library(path: list[str] | None = None) -> str:
    """Find wasmtime's shared library.

    Args:
        path: directories to look in; `sys.path` when left out.

    Returns:
        Absolute path of the library.

    Raises:
        EngineError: not installed, not for this processor, or another version.
    """
    from phase.jobs.errors import EngineError

    hint = f"Install wasmtime=={VERSION} into this Python"
    for entry in sys.path if path is None else path:
        found = os.path.join(entry, "wasmtime", f"linux-{machine()}", "_libwasmtime.so")
        if os.path.exists(found):
            # The wheel's own record; importlib.metadata would import half of the standard library.
            if os.path.isdir(os.path.join(entry, f"wasmtime-{VERSION}.dist-info")):
                return os.path.abspath(found)
            raise EngineError(f"wasmtime in {entry} is not version {VERSION}", hint=hint)
    raise EngineError(f"no wasmtime for {machine()} on this Python's path", hint=hint)
