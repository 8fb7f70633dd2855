"""A prepared stick or repository steers no terminal and ends in no traceback, whatever its metadata says."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from phase.errors import PhaseError
from tests.phase.release.shop import Shop

#: Turns text red, hides what follows, begins a line of its own.
EVIL = "\x1b[31m\u202eEVIL\x07\nroot: 3 of 3 sign"
Place = tuple[str | int, ...]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """A release is published; a rotation, another channel and a second release wait, and are on a stick."""
    monkeypatch.chdir(tmp_path)
    found = Shop()
    found.add("1.0")
    found.run("key fresh/timestamp.json --role timestamp --plain")
    online = found.hand_over("online", "timestamp", "snapshot")
    found.run(f"rotate repo --public fresh/timestamp.pub --yes --stage {online}")
    found.add("2.0", "testing", f"--stage {online}")
    found.run("sign repo --export stick")
    return found


def strings(value: Any, place: Place = ()) -> Iterator[tuple[Place, bool]]:
    """Where in a document a string is: a key, if that is true, or a value."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield (*place, key), True
            yield from strings(each, (*place, key))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from strings(each, (*place, number))
    elif isinstance(value, str):
        yield place, False


def shapes(document: Any) -> list[tuple[Place, bool]]:
    """One of each kind of place: key ids, hashes and numbers in a list are alike."""
    found: dict[str, tuple[Place, bool]] = {}
    for place, key in strings(document):
        shape = re.sub(r"[0-9a-f]{64}|\b\d+\b", "*", "/".join(map(str, place)))
        found.setdefault(f"{shape} {key}", (place, key))
    return list(found.values())


def prepared(document: Any, place: Place, key: bool) -> bytes:
    copy = json.loads(json.dumps(document))
    *way, last = place
    node = copy
    for step in way:
        node = node[step]
    if key:
        node[f"{last}{EVIL}"] = node.pop(last)
    else:
        node[last] += EVIL
    return json.dumps(copy).encode()


def say(shop: Shop, words: str) -> None:
    done = shop.invoke(words, says="n\n")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        assert isinstance(done.exception, PhaseError), (words, done.exception)
    for line in done.output.splitlines():
        assert line.isprintable(), (words, line)
        assert not line.startswith("root: 3 of 3 sign"), (words, done.output)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("tree", "commands"),
    [("stick", ["sign stick --keys online"]), ("repo", ["show repo", "status repo", "verify repo"])],
)
def test_a_prepared_stick_steers_no_terminal(shop: Shop, tree: str, commands: list[str]) -> None:
    shutil.copytree(tree, "good")
    tried = 0
    for path in sorted(Path(tree).rglob("*.json")):
        document = json.loads(path.read_bytes())
        for place, key in shapes(document):
            path.write_bytes(prepared(document, place, key))
            for words in commands:
                say(shop, words)
                shutil.rmtree(tree)
                shutil.copytree("good", tree)
                path.write_bytes(prepared(document, place, key))
            shutil.rmtree(tree)
            shutil.copytree("good", tree)
            tried += 1
    assert tried > 100


def test_names_of_files_steer_no_terminal(shop: Shop) -> None:
    for tree, words in (("stick", "sign stick --keys online"), ("repo/staged", "show repo")):
        good = next(Path(tree).glob("testing*.json"))
        evil = good.with_name(f"{EVIL}{good.name}")
        good.rename(evil)
        say(shop, words)
        evil.rename(good)
