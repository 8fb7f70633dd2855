"""Both SDKs with a gateway that is honest, and with ones that are not."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from wasmtime import wat2wasm

from tests.sdk import liar, node, php
from tests.sdk.node import PROJECT

Ask = Callable[..., dict[str, Any]]


def section(length: int) -> bytes:
    """A custom section of a module, with an empty name; nothing for none."""
    size, coded = length, b""
    while size:
        coded += bytes([size & 127 | (128 if size > 127 else 0)])
        size >>= 7
    return b"\0" + coded + bytes(length) if length else b""


def _typescript(more: Mapping[str, str]) -> str:
    node.install()
    return node.run(["test/gateway.js"], more)


SDKS = {"php": lambda more: php.run("gateway.php", more), "typescript": _typescript}


@pytest.fixture(params=SDKS)
def ask(request: pytest.FixtureRequest, tmp_path: Path) -> Ask:
    """Has one SDK run a job at an address; what it says."""
    module = tmp_path / "hello.wasm"

    def run(url: str, padding: int = 0) -> dict[str, Any]:
        module.write_bytes(wat2wasm((PROJECT / "fixtures/hello.wat").read_text()) + section(padding))
        asked = {
            "url": url,
            "node": liar.NODE.public_key,
            "seed": liar.CLIENT_SEED,
            "module": str(module),
            "args": ["a", "ü"],
            "env": {"A": "1"},
            "stdin": "Hello, World",
            "limits": {"fuel": 10_000_000, "wall_seconds": 20, "output_bytes": 1 << 20},
            "timeout": 4.0,
            "request_timeout": 2.0,
        }
        said: dict[str, Any] = json.loads(SDKS[request.param]({"ASKED": json.dumps(asked), "no_proxy": "*"}))
        return said

    return run


def test_a_job_at_an_honest_gateway(ask: Ask) -> None:
    with liar.lying() as (url, server):
        said = ask(url)
    assert said == {
        "stdout": "dlroW ,olleH",
        "stderr": "",
        "code": 0,
        "status": {"kind": "exited", "code": 0},
        "node": liar.NODE.public_key,
    }
    assert [each.split()[0] for each in server.asked] == ["PUT", "PUT", "POST", *["GET"] * 4]


def test_a_node_that_has_forgotten_a_module_is_brought_it_again(ask: Ask) -> None:
    with liar.lying("forgetful") as (url, server):
        assert ask(url)["stdout"] == "dlroW ,olleH"
    asked = [each.split()[0] for each in server.asked]
    assert asked == ["PUT", "PUT", "POST"] * 2 + ["GET"] * 4


def test_a_large_module_is_brought_where_it_is_not_there(ask: Ask) -> None:
    with liar.lying() as (url, server):
        assert ask(url, padding=20_000)["code"] == 0
        assert ask(url, padding=20_000)["code"] == 0
    asked = [each.split()[0] for each in server.asked]
    assert asked[:3] == ["HEAD", "PUT", "PUT"]
    assert asked[8:10] == ["HEAD", "PUT"]


@pytest.mark.parametrize(
    ("lie", "verdict", "field"),
    [
        ("other key", "signature", ""),
        ("changed receipt", "signature", ""),
        ("empty receipt", "signature", ""),
        ("other node", "binding", "node key"),
        ("other job", "binding", "job id"),
        ("older receipt", "binding", "nonce"),
        ("other module", "binding", "module"),
        ("other output", "binding", "stdout"),
        ("other args", "binding", "args"),
        ("other env", "binding", "env"),
        ("other input", "binding", "stdin"),
        ("a part of the input", "binding", "stdin"),
        ("other limits", "binding", "limits"),
        ("other seed", "binding", "seed"),
        ("other files", "binding", "files"),
        ("other requester", "binding", "requester"),
    ],
)
def test_a_receipt_that_does_not_hold_is_refused(ask: Ask, lie: str, verdict: str, field: str) -> None:
    with liar.lying(lie) as (url, _):
        said = ask(url)
    assert (said["error"], said["verdict"], said["field"]) == ("Receipt", verdict, field), said


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        ("huge receipt", "more than 4194304 bytes"),
        ("endless receipt", "more than 4194304 bytes"),
        ("endless output", "more than 1048576 bytes"),
        ("endless errors", "more than 1048576 bytes"),
        ("endless status", "more than 65536 bytes"),
        ("many headers", ""),
        ("slow status", ""),
        ("slow receipt", ""),
        ("slow headers", ""),
        ("silent", ""),
        ("short receipt", ""),
        ("elsewhere", ""),
        ("status of another job", "another job"),
        ("no JSON", "malformed"),
        ("no status", "malformed"),
        ("name twice", "a name twice"),
        ("unknown state", "malformed"),
        ("no receipt", "404"),
    ],
)
def test_an_answer_that_is_not_as_agreed_is_refused(ask: Ask, lie: str, words: str) -> None:
    with liar.lying(lie) as (url, server):
        said = ask(url)
    assert said["error"] == "Gateway", said
    assert words in said["message"]
    assert said["message"].isprintable()
    assert not any("/secret" in each for each in server.asked)


def test_an_output_that_unpacks_to_more_than_is_allowed_is_refused(ask: Ask) -> None:
    """One SDK unpacks, up to the limit; the other takes the bytes as they are, which are not the output."""
    with liar.lying("packed output") as (url, _):
        said = ask(url)
    assert (said["error"], said.get("field")) in (("Gateway", None), ("Receipt", "stdout")), said


def test_a_node_that_is_away_for_a_moment_is_asked_again(ask: Ask) -> None:
    """The job goes on: to give up at the first question that fails would lose its result."""
    with liar.lying("away") as (url, server):
        assert ask(url)["stdout"] == "dlroW ,olleH"
    assert sum(each.startswith("GET") for each in server.asked) >= 7


def test_a_node_that_stays_away_is_given_up(ask: Ask) -> None:
    with liar.lying("gone") as (url, server):
        said = ask(url)
    assert said["error"] == "Gateway", said
    assert 2 <= sum(each.startswith("GET") for each in server.asked) <= 10


def test_a_job_that_never_ends_is_given_up_and_cancelled(ask: Ask) -> None:
    with liar.lying("never ends") as (url, server):
        said = ask(url)
    assert said["error"] == "Gateway", said
    assert server.asked[-1].startswith("DELETE /v1/jobs/")
    assert sum(each.startswith("GET") for each in server.asked) < 25


def test_a_job_that_is_lost_has_no_result(ask: Ask) -> None:
    with liar.lying("lost") as (url, _):
        said = ask(url)
    assert (said["error"], said["state"]) == ("Job", "lost")
    assert said["message"].isprintable()


def test_a_refusal_has_its_reason(ask: Ask) -> None:
    with liar.lying("full") as (url, _):
        said = ask(url)
    expected = ("Gateway", "queue full", 429, 7)
    assert (said["error"], said["reason"], said["status"], said["retryAfter"]) == expected
    assert "all 4 places are taken" in said["message"]
