"""A receipt counts only if each of its parts is what was asked for: a node that signs others is caught."""

from typing import Any

import pytest
from msgspec.structs import replace

from phase.client import Task, UntrueError
from phase.client.verify import check, counted
from phase.identity import Identity
from phase.jobs import receipt as receipts
from phase.jobs.limits import Limits
from phase.jobs.receipt import Content, DirectoryRef, EngineRef, JobRef, Receipt
from phase.jobs.status import Exited

NODE, CLIENT = Identity.from_seed(b"\1" * 32), Identity.from_seed(b"\2" * 32)
TASK = Task(
    module=b"wasm", args=("a",), env={"A": "b"}, stdin=b"in", seed=3, inputs={"i": b"file"}, outputs=("o",)
)
ASKED = TASK.asked("nonce", CLIENT.public_key)
OTHER = counted(b"other")


def _receipt(**changed: Any) -> bytes:
    """A receipt of the task, signed by the node, with something else in it."""
    good = Receipt(
        job=JobRef("job", "nonce"),
        module=TASK.content,
        args=TASK.args,
        env=dict(TASK.env),
        stdin=counted(b"in"),
        stdout=counted(b"out"),
        stderr=counted(b"err"),
        limits=TASK.limits,
        status=Exited(0),
        fuel_used=1,
        memory_bytes=1,
        engine=EngineRef("wasmtime", "1", "x86_64"),
        started="2026-01-01T00:00:00.000Z",
        finished="2026-01-01T00:00:00.000Z",
        wall_ms=1.0,
        node=NODE.public_key,
        seed=3,
        requester=CLIENT.public_key,
        attempt=1,
        inputs={"i": counted(b"file")},
        outputs={"o": counted(b"left")},
    )
    return receipts.issue(replace(good, **changed), NODE)


def _check(envelope: bytes, node: str = NODE.public_key) -> Receipt:
    return check(
        envelope,
        node=node,
        job="job",
        stdout=counted(b"out"),
        stderr=counted(b"err"),
        files={"o": b"left"},
        asked=ASKED,
        stdin=b"in",
    )


def test_a_receipt_of_what_was_asked_is_taken() -> None:
    assert _check(_receipt()).status == Exited(0)
    # The module need not read all of its input.
    assert _check(_receipt(stdin=counted(b"i"))).stdin.length == 1


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        ("job", JobRef("other", "nonce"), ""),
        ("job", JobRef("job", "other"), "nonce"),
        ("module", OTHER, "module"),
        ("module", Content(TASK.content.sha256, 5), "module"),
        ("args", (), "arguments"),
        ("env", {}, "environment"),
        ("stdin", OTHER, "stdin"),
        ("stdin", Content(counted(b"in").sha256, 3), "stdin"),
        ("stdout", OTHER, "stdout"),
        ("stderr", OTHER, "stderr"),
        ("limits", Limits(fuel=1), "limits"),
        ("seed", None, "seed"),
        ("requester", None, "requester"),
        ("requester", NODE.public_key, "requester"),
        ("attempt", 2, "attempt"),
        ("directories", (DirectoryRef("/", True),), "directories"),
        ("inputs", {}, "input files"),
        ("outputs", {}, "output files"),
        ("outputs", {"o": OTHER}, "output files"),
        ("outputs", {"o": counted(b"left"), "p": OTHER}, "output files"),
    ],
)
def test_a_receipt_of_anything_else_is_not(field: str, value: object, what: str) -> None:
    """And it is said which part is another one, so that its owner can look for the reason."""
    with pytest.raises(UntrueError, match=f"is of another {what}: expected" if what else "does not hold"):
        _check(_receipt(**{field: value}))


def test_a_receipt_of_another_node_is_not() -> None:
    with pytest.raises(UntrueError, match="does not hold"):
        _check(_receipt(), node=CLIENT.public_key)


def test_input_that_the_node_had_whole_is_in_the_receipt_whole() -> None:
    """Whether it was sent a moment ago, or by a client that has left and knows its hash alone."""
    short = replace(ASKED, stdin=counted(b"in"))

    def verify(envelope: bytes, stdin: bytes | None) -> Receipt:
        return check(
            envelope,
            node=NODE.public_key,
            job="job",
            stdout=counted(b"out"),
            stderr=counted(b"err"),
            files={"o": b"left"},
            asked=short,
            stdin=stdin,
        )

    for given in (b"in", None):
        assert verify(_receipt(), given).stdin == counted(b"in")
        for said in (b"i", b"", b"other"):
            with pytest.raises(UntrueError, match="another stdin"):
                verify(_receipt(stdin=counted(said)), given)
