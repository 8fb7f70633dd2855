"""The node takes every request of the vectors, once, and none that was changed."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from phase.node.admission import Admission
from phase.node.requests import Checker, UnsignedError, text

_FILE = Path(__file__).parents[2] / "fixtures/vectors/requests.json"
FOUND: list[dict[str, str]] = json.loads(_FILE.read_text())["vectors"]


def check(each: dict[str, str], checker: Checker | None = None, **changes: str) -> str:
    told = each | changes
    checker = checker or Checker(told["node"], Admission([each["key"]]), clock=lambda: float(each["time"]))
    headers = {f"Phase-{name.title()}": told[name] for name in ("key", "time", "nonce", "signature")}
    sha256 = hashlib.sha256(base64.b64decode(told["body"])).hexdigest()
    return checker.check(told["method"], told["target"], headers, sha256)


@pytest.mark.parametrize("each", FOUND, ids=[f"{each['method']} {each['target']}" for each in FOUND])
def test_the_node_takes_it_once(each: dict[str, str]) -> None:
    checker = Checker(each["node"], Admission([each["key"]]), clock=lambda: float(each["time"]))
    assert check(each, checker) == each["key"]
    with pytest.raises(UnsignedError, match="used before"):
        check(each, checker)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "DELETE"},
        {"target": "/v1/jobs/other"},
        {"node": "ab" * 32},
        {"nonce": "ab" * 16},
        {"body": "AA=="},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_node_takes_none_that_was_changed(change: dict[str, Any]) -> None:
    with pytest.raises(UnsignedError, match="does not hold"):
        check(FOUND[0], **change)


def test_what_is_signed_is_what_the_vector_says() -> None:
    for each in FOUND:
        sha256 = hashlib.sha256(base64.b64decode(each["body"])).hexdigest()
        words = {name: each[name] for name in ("node", "key", "nonce")}
        found = text(each["method"], each["target"], at=each["time"], sha256=sha256, **words)
        assert found.decode() == each["text"]
