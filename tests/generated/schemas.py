"""The JSON schemas of the messages between peers, and of the gateway."""

import functools
import json
from collections.abc import Callable
from pathlib import Path

from phase.node import gateway
from phase.peer import messages

_TREE = Path(__file__).parents[2]


def _text(found: dict[str, object]) -> str:
    return json.dumps(found, indent=2) + "\n"


def _all() -> dict[Path, dict[str, object]]:
    places = {"phase/peer/schemas": messages.schemas(), "phase/node/schemas": gateway.schemas()}
    return {_TREE / place / name: each for place, found in places.items() for name, each in found.items()}


PLACES: dict[Path, Callable[[], str]] = {
    path: functools.partial(_text, found) for path, found in _all().items()
}
