"""The output of a boot: marks for machines, one line for each step, and short plain lines for people.

A mark goes through /dev/kmsg because the kernel prints whole records: a driver's message cannot
tear it in half, as it can tear a line that a process writes to the serial port. The mark's own CRC-32 shows
whether a serial line has dropped or garbled it, and `phase.marks=N` prints every mark N times.
A plain line goes to the consoles themselves, so that `quiet` and `loglevel=` do not hide it. All printed
text passes `printable`, so text from others, for example a provider, is never printed raw.
"""

import binascii
import json
import os
import time

from phase.console import Consoles

KMSG = "/dev/kmsg"
#: The kernel truncates a record at LOG_LINE_MAX (about 1000 bytes); longer marks lose facts, not the line.
MAX_BYTES = 900
#: Bytes in front of the JSON, and bytes of the checksum at its end.
_AROUND = len("phase-mark ") + len(',"crc":"00000000"')
#: Priority "error" of the kernel's log: on the console even under `quiet`, which drops warnings and below.
SHOWN = 3
#: Priority "debug": in the log, and not on the console.
HIDDEN = 7
#: Limits for a fact, and for a line for people, characters.
_MAX_TEXT = 4000

_consoles = Consoles()
#: When the last line for people was printed, `time.monotonic()`.
_said = time.monotonic()

Fact = str | int | float | bool | None


def line(step: str, outcome: str = "ok", *, t: float | None = None, **facts: Fact) -> str:
    """Format one mark.

    Args:
        step: a timeline phase (docs/develop/design.md, "Formats").
        outcome: `ok`, `refused`, `failed` or `retry`.
        t: seconds since this kernel started; now, when left out.
        facts: small facts for tests and people.

    Returns:
        One line of at most `MAX_BYTES` bytes, without a newline. The last fact is `crc`: the CRC-32
        (that of zlib, in hex) of the JSON text before its own comma.
    """
    when = time.monotonic() if t is None else t
    mark: dict[str, Fact] = {"step": step, "outcome": outcome, "t": round(when, 3)}
    mark |= {name: printable(fact) if isinstance(fact, str) else fact for name, fact in facts.items()}
    text = _encode(mark)
    for name in sorted(facts, key=lambda name: len(str(mark[name])), reverse=True):
        if len(text) <= MAX_BYTES - _AROUND:
            break
        mark[name] = str(mark[name])[:80] + "..."
        text = _encode(mark)
    body = text.removesuffix("}")
    return f'phase-mark {body},"crc":"{binascii.crc32(body.encode()):08x}"}}'


def printable(text: str, limit: int = _MAX_TEXT) -> str:
    """Make text of any origin safe to print: one line of ASCII, limited, that cannot be taken for a mark.

    Args:
        text: from anywhere.
        limit: for the result, characters.

    Returns:
        The text with a space for each control character, `?` for each character outside ASCII, `'` for the
        characters with a meaning in JSON (`"` and a backslash), and `_mark` for `-mark`.
    """
    clean = "".join(
        "'" if c in '"\\' else c if " " <= c <= "~" else "?" if c > "~" else " " for c in text[: 2 * limit]
    ).replace("-mark", "_mark")
    return clean if len(clean) <= limit else f"{clean[: max(limit - 3, 0)]}..."


def _encode(mark: dict[str, Fact]) -> str:
    return json.dumps(mark, separators=(",", ":"))


def emit(step: str, outcome: str = "ok", *, t: float | None = None, **facts: Fact) -> None:
    """Print one mark on the console; on a host without a writable kernel log, on stderr."""
    text = line(step, outcome, t=t, **facts)
    for _ in range(_copies()):
        _log(text, _level())


def say(text: str) -> None:
    """Print one short plain line for people, beside the marks.

    On a machine that boots it goes to every console, and to the kernel's log with a low priority; elsewhere
    to stderr.
    """
    global _said
    _said = time.monotonic()
    plain = f"phase: {printable(text)}"[:MAX_BYTES]
    if _boots() and _consoles.show(plain):
        _log(plain, HIDDEN)
    else:
        # No console took the whole line: print it through the log, too.
        _log(plain, SHOWN)


def silence() -> float:
    """Seconds since the last line for people."""
    return time.monotonic() - _said


def _copies() -> int:
    # Set by the init scripts from `phase.marks=`: a lossy serial line may eat some copies.
    text = os.environ.get("PHASE_MARK_COPIES", "")
    return int(text) if text in tuple("123456789") else 1


def _level() -> int:
    # Set by the init script where the only consoles are screens: no machine reads those.
    return HIDDEN if os.environ.get("PHASE_MARK_LEVEL") == str(HIDDEN) else SHOWN


def _boots() -> bool:
    return os.getpid() == 1 or os.environ.get("PHASE_MARKS") == "kmsg"


def _log(text: str, level: int) -> None:
    if _boots():
        try:
            descriptor = os.open(KMSG, os.O_WRONLY)
        except OSError:
            pass
        else:
            try:
                os.write(descriptor, f"<{level}>{text}\n".encode("ascii", "replace"))
            finally:
                os.close(descriptor)
            return
    os.write(2, f"{text}\n".encode("ascii", "replace"))
