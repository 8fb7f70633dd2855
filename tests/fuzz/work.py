"""Targets for what jobs bring: modules, and the messages of a worker that was taken over."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from phase.jobs import binary, component, wire
from phase.jobs.flow import Messages
from phase.jobs.limits import MIB, Limits
from phase.jobs.runner import Job, _result, execute
from phase.jobs.status import explain

_MODULES = Path(__file__).parents[2] / "fixtures"
_RUN = ("hello", "exit", "data", "component")
LIMITS = Limits(
    fuel=10_000_000, wall_seconds=2.0, memory_bytes=16 * MIB, output_bytes=4096, compile_bytes=64 * MIB
)


def messages(data: bytes) -> None:
    """All that a worker says until it ends."""
    ours, theirs = os.pipe()
    with open(ours, "rb"), open(theirs, "wb") as end:
        end.write(data[:60_000])
        end.flush()
        end.close()
        read = Messages(ours, -1)
        for _ in range(64):
            read.step({ours: 1} if read.waits() else {})
        assert len(read.printed) <= 1 << 20
        ended = _result(read.done or [])
    if ended is not None:
        status, fuel, peak = ended
        assert explain(status).isprintable()
        assert fuel is None or 0 <= fuel < 1 << 63
        assert peak is None or 0 <= peak < 1 << 63


def shape(data: bytes) -> None:
    """A module's sections: what is compiled is not much longer than what came."""
    assert len(binary.read(data).module) <= len(data) + 64 * binary.MAX_TABLES


def parts(data: bytes) -> None:
    """A component's sections: it is refused, or what is compiled is no longer than what came."""
    with contextlib.suppress(ValueError):
        assert len(component.read(data).module) <= len(data)


def module(data: bytes) -> None:
    """A whole job with this module: whatever it is, it ends within its limits and is named."""
    done = execute(Job(data, stdin=b"Hello", limits=LIMITS))
    assert explain(done.status).isprintable()
    assert len(done.stdout) + len(done.stderr) <= LIMITS.output_bytes
    assert done.wall_seconds < 20


def modules() -> tuple[bytes, ...]:
    """Modules that run, and a component behind them."""
    from wasmtime import wat2wasm

    compile_: Callable[[str], bytes] = lambda text: bytes(wat2wasm(text))  # noqa: E731
    return tuple(compile_((_MODULES / f"{name}.wat").read_text()) for name in _RUN)


def said() -> tuple[bytes, ...]:
    """Messages of workers that were not taken over."""
    frames = (
        wire.pack(wire.COMPILE, b"1000000"),
        wire.pack(wire.RUNNING),
        wire.pack(wire.WANT, b"0", b"4096"),
        wire.pack(wire.DONE, b"exited", b"0", b"1234", b"65536"),
    )
    whole = b"".join(len(frame).to_bytes(4, "little") + frame for frame in frames)
    trapped = wire.pack(wire.DONE, b"trapped", b"unreachable", b"", b"0")
    return whole, len(trapped).to_bytes(4, "little") + trapped
