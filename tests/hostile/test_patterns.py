"""Patterns of the formats: in Python, `$` also matches before a last line feed; and a search is no match."""

import importlib
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

import phase

_ROOT = Path(phase.__file__).parent
#: A good value of each type whose text has a pattern.
_GOOD = {
    "phase.discovery.dht.announcement:_Name": "stable",
    "phase.jobs.receipt:Hex256": "a" * 64,
    "phase.jobs.receipt:Timestamp": "2026-11-27T22:00:00.000Z",
    "phase.peer.messages:FileName": "a file.txt",
    "phase.peer.messages:JobId": "job:1",
    "phase.peer.messages:Nonce": "nonce+/=",
    "phase.peer.records:_Name": "wasi-preview1",
}


def _types() -> list[str]:
    found = []
    for path in _ROOT.rglob("*.py"):
        module = ".".join(path.relative_to(_ROOT.parent).with_suffix("").parts)
        text = path.read_text()
        found += [f"{module}:{name}" for name in re.findall(r"(?m)^(\w+) = Annotated\[.*pattern=", text)]
        assert text.count("pattern=") == text.count("Meta(pattern=") + text.count(", pattern="), path
    return sorted(found)


def test_every_type_with_a_pattern_is_tried() -> None:
    assert _types() == sorted(_GOOD)


@pytest.mark.parametrize(("name", "good"), sorted(_GOOD.items()))
def test_text_with_a_line_feed_is_refused(name: str, good: str) -> None:
    module, attribute = name.split(":")
    kind: Any = getattr(importlib.import_module(module), attribute)
    assert msgspec.convert(good, kind) == good
    for bad in (f"{good}\n", f"\n{good}", f"{good[:-1]}\n", f"x\n{good}", f"{good}\n\n"):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(bad, kind)
