"""Boot marks: lines on a console that a machine prints for the lab to read.

A mark is `NAME-mark {json}` anywhere in a line; the JSON object has `step` (what ended), `outcome`
(`ok` or something worse), `t` (seconds since that kernel started) and any facts. Its last fact may be
`crc`: the CRC-32 (zlib's, eight hex digits) of the JSON text before `,"crc"`. It is held to that wherever
it is there; a console on a line that garbles bytes takes no mark without one.
"""

import binascii
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

#: A line this long is not a mark: the kernel cuts records at about 1000 bytes.
MAX_LINE = 4096
#: Seconds; a larger number did not come from a clock.
_MAX_UPTIME = 1e9
_CRC = re.compile(r'(.*),"crc":"([0-9a-f]{8})"\}')
_MARK = re.compile(r"\b([a-z]+)-mark (\{.*\})")


class Mark(NamedTuple):
    """One mark.

    Attributes:
        step: the step that ended.
        outcome: `ok`, `refused`, `failed`, `retry`.
        t: seconds since the machine's kernel started.
        facts: everything else it said.
        arrived: `time.monotonic()` on the host when the line was complete.
        crc: its checksum, which held; empty when it carried none.
    """

    step: str
    outcome: str
    t: float
    facts: Mapping[str, object]
    arrived: float
    crc: str = ""


def parse(line: str, arrived: float) -> Mark | None:
    """Read a mark out of a console line; None when there is none, or a torn or garbled one."""
    found = _MARK.search(line[:MAX_LINE])
    if found is None:
        return None
    try:
        facts = _plain(json.loads(found[2]))
        step, outcome, t = facts.pop("step"), facts.pop("outcome"), facts.pop("t")
    except (ValueError, KeyError, RecursionError, AttributeError):
        return None
    if not isinstance(step, str) or not isinstance(outcome, str):
        return None
    if type(t) not in (int, float) or not 0 <= t <= _MAX_UPTIME:
        return None
    crc = facts.pop("crc", "")
    if crc:
        checked = _CRC.fullmatch(found[2])
        if not checked or checked[2] != crc or int(crc, 16) != binascii.crc32(checked[1].encode()):
            return None
    return Mark(step, outcome, float(t), facts, arrived, crc)


def _plain(value: Any) -> Any:
    """The same without what no terminal and no file should get: an escape in JSON can stand for anything."""
    if isinstance(value, str):
        return "".join(
            sign if sign.isprintable() or sign in "\n\t" else "\N{REPLACEMENT CHARACTER}" for sign in value
        )
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {_plain(key): _plain(each) for key, each in value.items()}
    return value
