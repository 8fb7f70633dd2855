"""The three verifiers say the same of receipts that were damaged, before or after they were signed."""

import base64
import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fixtures.vectors import case, taken
from phase import dsse
from phase.jobs import receipt as receipts
from phase.jobs.errors import ReceiptBindingError, ReceiptFormatError, ReceiptSignatureError
from tests.sdk import node, php
from tests.sdk.damage import damaged

#: How many, and from which on: `PHASE_ALIKE=100000 PHASE_ALIKE_FROM=5` looks longer, and elsewhere.
COUNT = int(os.environ.get("PHASE_ALIKE", "2000"))
FIRST = int(os.environ.get("PHASE_ALIKE_FROM", "0"))


#: Fields of a receipt that are objects of any names; as lists of pairs, since PHP has one type for both.
MAPS = {"env", "inputs", "outputs"}


def python_says(envelope: bytes) -> Any:
    """The verdict, or the receipt of an accepted one."""
    try:
        said = msgspec.to_builtins(receipts.verify(envelope, key=case.NODE.public_key))
        return said | {name: list(said[name].items()) for name in MAPS & said.keys()}
    except ReceiptSignatureError:
        return "signature"
    except ReceiptFormatError:
        return "format"
    except ReceiptBindingError:
        return "binding"


def envelopes() -> list[bytes]:
    """Damaged bodies that are signed, and damaged envelopes of good ones."""
    good = [each.receipt for each in taken.good() if each.receipt is not None]
    made = []
    for number in range(FIRST, FIRST + COUNT):
        chance = random.Random(number)  # noqa: S311  the same each time
        body = case.statement(chance.choice(good))
        if number % 4:
            made.append(dsse.sign(case.TYPE, damaged(body, chance), [case.NODE]))
        else:
            made.append(damaged(dsse.sign(case.TYPE, body, [case.NODE]), chance))
    return made


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """The file of them, and what Python says."""
    found = envelopes()
    path = tmp_path_factory.mktemp("alike") / "vectors.json"
    told = (
        {"key": case.NODE.public_key, "expect": {}, "envelope": base64.b64encode(each).decode()}
        for each in found
    )
    path.write_text("".join(json.dumps(each) + "\n" for each in told))
    return path, [plain(json.dumps(python_says(each))) for each in found]


def plain(text: str) -> Any:
    """JSON, in which the order of variables and how a number is written do not matter."""
    said = json.loads(text, parse_int=float)
    if isinstance(said, str):
        return said
    return said | {name: sorted(said[name], key=lambda pair: str(pair[0])) for name in MAPS & said.keys()}


def compare(path: Path, python: list[Any], lines: str) -> None:
    # Not splitlines: receipts have U+2028 in them.
    other = [plain(line) for line in lines.rstrip("\n").split("\n")]
    vectors = [json.loads(line) for line in path.read_text().splitlines()]
    differ = [
        (number + FIRST, base64.b64decode(vectors[number]["envelope"]), one, two)
        for number, (one, two) in enumerate(zip(python, other, strict=True))
        if one != two
    ]
    assert differ[:3] == []


def test_typescript_says_what_python_says(asked: tuple[Path, list[Any]]) -> None:
    path, python = asked
    compare(path, python, node.run(["test/judge.js", path]))


def test_php_says_what_python_says(asked: tuple[Path, list[Any]]) -> None:
    path, python = asked
    compare(path, python, php.run("judge.php", words=[str(path)]))


def test_some_are_taken_and_some_are_refused(asked: tuple[Path, list[Any]]) -> None:
    counts = Counter(said if isinstance(said, str) else "accepted" for said in asked[1])
    assert min(counts[name] for name in ("accepted", "format", "signature")) > COUNT // 40, counts
