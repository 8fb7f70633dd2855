"""What arrives is of the type it must be, in every place of every role, before it is remembered."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from phase import trust

Publisher = Any  # the class is the fixtures' own
Sign = Any
Place = tuple[str | int, ...]
ROLES = ("root", "timestamp", "snapshot", "targets", "stable-x86_64")
#: What no client reads, and a key that cannot be used, which counts for no threshold: they may be anything.
NOT_READ = {
    "x-phase-release", "spec_version", "keys",
    # For machines that read format 1 alone.
    "chunk_size", "chunks",
}  # fmt: skip
#: The same as leaving it out, where that is allowed.
NOTHING = {"length", "terminating"}
#: By the type that is there: values of other types, some of which Python takes for it.
OTHERS: dict[type, tuple[object, ...]] = {
    int: (True, False, "1", [1], None),
    bool: (1, 0, "true", None),
    str: (1, True, ["a"], {"a": "b"}, None),
}


def leaves(value: object, place: Place = ()) -> Iterator[tuple[Place, object]]:
    """Every value that is no container, and where it is."""
    items: Iterator[tuple[str | int, object]] | None = None
    if isinstance(value, dict):
        items = iter(value.items())
    elif isinstance(value, list):
        items = iter(enumerate(value))
    if items is None:
        yield place, value
        return
    for key, each in items:
        if key not in NOT_READ:
            yield from leaves(each, (*place, key))


def put(signed: Any, place: Place, value: object) -> None:
    for key in place[:-1]:
        signed = signed[key]
    signed[place[-1]] = value


@pytest.mark.parametrize("role", ROLES)
def test_true_is_no_version_in_any_place_of_any_role(publisher: Publisher, sign: Sign, role: str) -> None:
    honest = dict(publisher.files)
    known = publisher.refresh().floor
    tried = 0
    passed: list[tuple[Place, object]] = []
    for place, there in list(leaves(publisher.signed(role))):
        for value in OTHERS[type(there)]:
            if value is None and place[-1] in NOTHING and role != "stable-x86_64":
                continue
            publisher.files = dict(honest)
            if role == "root":
                signed = json.loads(publisher.root)["signed"] | {"version": 2}
                put(signed, place, value)
                publisher.files["2.root.json"] = sign(signed, publisher.keys["root"])
            else:
                publisher.forge(role, lambda signed, at=place, new=value: put(signed, at, new))
            tried += 1
            try:
                publisher.refresh(floor=known)
            except trust.TrustError:
                continue
            passed.append((place, value))
    assert tried > 20
    assert passed == []
