"""Machine-readable marks on the console: one line a step, written through the kernel log.

A mark goes through /dev/kmsg because the kernel prints whole records: a driver's message cannot
tear it in half the way it tears a line that a process writes to the serial port. What a serial line
drops or garbles on the way shows in the mark's own CRC-32, and `phase.marks=N` prints every mark N times.
"""

import binascii
import json
import os
import time

KMSG = "/dev/kmsg"
#: The kernel truncates a record at LOG_LINE_MAX (about 1000 bytes); longer marks lose facts, not the line.
MAX_BYTES = 900
#: Bytes the checksum adds at the end.
_CRC_BYTES = len(',"crc":"00000000"')
#: Priority "error": still on the console under `quiet`, which drops everything from warning down.
_PRIORITY = "<3>"

Fact = str | int | float | bool | None


def line(step: str, outcome: str = "ok", *, t: float | None = None, **facts: Fact) -> str:
    """Format one mark.

    Args:
        step: a timeline phase (docs/design.md, "Formats").
        outcome: `ok`, `refused`, `failed` or `retry`.
        t: seconds since this kernel started; now, when left out.
        facts: what a test or a person would want to know, small.

    Returns:
        One line of at most `MAX_BYTES` bytes, without a newline. The last fact is `crc`: the CRC-32
        (that of zlib, in hex) of the JSON text before its own comma.
    """
    when = time.monotonic() if t is None else t
    mark: dict[str, Fact] = {"step": step, "outcome": outcome, "t": round(when, 3)}
    mark |= {name: _plain(fact) if isinstance(fact, str) else fact for name, fact in facts.items()}
    text = _encode(mark)
    for name in sorted(facts, key=lambda name: len(str(mark[name])), reverse=True):
        if len(text) <= MAX_BYTES - _CRC_BYTES:
            break
        mark[name] = str(mark[name])[:80] + "..."
        text = _encode(mark)
    body = text.removesuffix("}")
    return f'phase-mark {body},"crc":"{binascii.crc32(body.encode()):08x}"}}'


def _plain(text: str) -> str:
    # /dev/kmsg turns other bytes into \\xNN, which is not JSON; a reason may quote a stranger's bytes.
    return "".join(c if " " <= c <= "~" and c not in '"\\' else "?" if c > "~" else " " for c in text)


def _encode(mark: dict[str, Fact]) -> str:
    return json.dumps(mark, separators=(",", ":"), ensure_ascii=True)


def emit(step: str, outcome: str = "ok", *, t: float | None = None, **facts: Fact) -> None:
    """Print one mark on the console; on a host without a writable kernel log, on stderr."""
    text = line(step, outcome, t=t, **facts)
    for _ in range(_copies()):
        _write(text)


def _copies() -> int:
    # Set by the init scripts from `phase.marks=`: a lossy serial line may eat some copies.
    text = os.environ.get("PHASE_MARK_COPIES", "")
    return int(text) if text in tuple("123456789") else 1


def say(text: str) -> None:
    """Print one short plain line for people, beside the marks."""
    _write(f"phase: {text}"[:MAX_BYTES])


def _write(text: str) -> None:
    if os.getpid() == 1 or os.environ.get("PHASE_MARKS") == "kmsg":
        try:
            descriptor = os.open(KMSG, os.O_WRONLY)
        except OSError:
            pass
        else:
            try:
                os.write(descriptor, f"{_PRIORITY}{text}\n".encode("ascii", "backslashreplace"))
            finally:
                os.close(descriptor)
            return
    os.write(2, f"{text}\n".encode())
