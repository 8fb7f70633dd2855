import hashlib
import json
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from click.testing import CliRunner

from phase import dsse
from phase.cli import receipt as receipt_command
from phase.identity import Identity
from phase.jobs import receipt as receipts
from phase.jobs.errors import JobRefusedError, ReceiptBindingError, ReceiptFormatError, ReceiptSignatureError
from phase.jobs.flow import Descriptor, Streams
from phase.jobs.limits import Limits
from phase.jobs.runner import Job, execute
from phase.jobs.signed import Outcome, run
from phase.jobs.status import Exited, LimitHit, Rejected

SCHEMAS = Path(receipts.__file__).parent / "schemas"
Wasm = Callable[[str], bytes]


@pytest.fixture(scope="module")
def identity() -> Identity:
    return Identity.ephemeral()


@pytest.fixture(scope="module")
def outcome(wasm: Wasm, identity: Identity) -> Outcome:
    return run(wasm("hello"), identity=identity, args=["a"], stdin=b"Hello", job_id="job-1", nonce="n-1")


def test_a_receipt_binds_what_ran(wasm: Wasm, identity: Identity, outcome: Outcome) -> None:
    module = hashlib.sha256(wasm("hello")).hexdigest()
    found = receipts.verify(
        outcome.receipt,
        key=identity.public_key,
        job_id="job-1",
        nonce="n-1",
        module_sha256=module,
        stdout=b"olleH",
    )
    assert (found.args, found.env, found.status) == (("a",), {}, Exited(0))
    assert found.stdin == receipts.Content(hashlib.sha256(b"Hello").hexdigest(), 5)
    assert found.stdout == receipts.Content(hashlib.sha256(b"olleH").hexdigest(), 5)
    assert found.limits == Limits()
    assert found.engine.version == "50.0.1"
    assert found.node == identity.public_key
    # Both have milliseconds.
    elapsed = (
        datetime.fromisoformat(found.finished) - datetime.fromisoformat(found.started)
    ).total_seconds()
    assert elapsed * 1000 == pytest.approx(found.wall_ms, abs=1.01)
    assert found.wall_ms == pytest.approx(outcome.execution.wall_seconds * 1000, abs=0.001)
    assert found.memory_bytes == outcome.execution.memory_bytes
    assert found.memory_bytes
    assert found.fuel_used is not None
    assert found.fuel_used > 0
    assert outcome.exit_code == 0


def test_a_receipts_times_are_as_far_apart_as_it_took(identity: Identity, outcome: Outcome) -> None:
    found = receipts.verify(outcome.receipt, key=identity.public_key)
    started, finished = (datetime.fromisoformat(text) for text in (found.started, found.finished))
    assert abs((finished - started).total_seconds() * 1000 - found.wall_ms) <= 1
    assert found.wall_ms == pytest.approx(outcome.execution.wall_seconds * 1000, abs=0.001)
    assert abs(started.timestamp() - outcome.execution.started) <= 0.001


def test_a_receipt_says_null_of_fuel_that_is_not_known(wasm: Wasm, identity: Identity) -> None:
    outcome = run(wasm("overflow"), identity=identity)
    assert receipts.verify(outcome.receipt, key=identity.public_key).fuel_used is None
    statement = json.loads(
        dsse.verify(outcome.receipt, keys=[identity.public_key], payload_type=receipts.PAYLOAD_TYPE)
    )
    assert statement["predicate"]["fuel_used"] is None


def test_a_receipt_of_streams_binds_what_passed(wasm: Wasm, identity: Identity) -> None:
    """What the module does not ask for is not its input, and stays where it is."""
    reader, writer = os.pipe()
    os.write(writer, b"0000000000000042of the next")
    os.close(writer)
    outcome = run(wasm("exit"), identity=identity, streams=Streams(stdin=Descriptor(reader)))
    assert os.read(reader, 100) == b"of the next"
    os.close(reader)
    found = receipts.verify(outcome.receipt, key=identity.public_key)
    assert found.status == Exited(42)
    assert found.stdin == receipts.Content(hashlib.sha256(b"0000000000000042").hexdigest(), 16)


def test_another_key_did_not_sign_it(outcome: Outcome) -> None:
    other = Identity.ephemeral().public_key
    with pytest.raises(ReceiptSignatureError, match=f"changed after .* signed by another key than {other}"):
        receipts.verify(outcome.receipt, key=other)


def test_one_changed_byte_of_the_statement_is_noticed(identity: Identity, outcome: Outcome) -> None:
    envelope = json.loads(outcome.receipt)
    payload = envelope["payload"]
    envelope["payload"] = payload[:40] + ("A" if payload[40] != "A" else "B") + payload[41:]
    with pytest.raises(ReceiptSignatureError):
        receipts.verify(json.dumps(envelope).encode(), key=identity.public_key)


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ("job id", {"job_id": "job-2"}),
        ("nonce", {"nonce": "n-2"}),
        ("module", {"module_sha256": "0" * 64}),
        ("stdout", {"stdout": b"Hello"}),
    ],
)
def test_a_true_receipt_of_something_else_is_refused(
    identity: Identity, outcome: Outcome, field: str, asked: dict[str, Any]
) -> None:
    with pytest.raises(ReceiptBindingError) as raised:
        receipts.verify(outcome.receipt, key=identity.public_key, **asked)
    assert raised.value.field == field


def test_a_node_cannot_sign_in_the_name_of_another(identity: Identity, outcome: Outcome) -> None:
    found = receipts.verify(outcome.receipt, key=identity.public_key)
    other = Identity.ephemeral()
    with pytest.raises(ReceiptBindingError, match="another node key"):
        receipts.verify(receipts.issue(found, other), key=other.public_key)


def test_a_subject_other_than_the_output_is_refused(identity: Identity, outcome: Outcome) -> None:
    statement = msgspec.json.decode(
        dsse.verify(outcome.receipt, keys=[identity.public_key], payload_type=receipts.PAYLOAD_TYPE)
    )
    statement["subject"][0]["digest"]["sha256"] = "0" * 64
    envelope = dsse.sign(receipts.PAYLOAD_TYPE, msgspec.json.encode(statement), [identity])
    with pytest.raises(ReceiptBindingError, match="subject"):
        receipts.verify(envelope, key=identity.public_key)


@pytest.mark.parametrize("body", [b"{}", b"not json", b'{"_type":"https://in-toto.io/Statement/v0.1"}'])
def test_a_signed_thing_that_is_no_receipt_is_refused(identity: Identity, body: bytes) -> None:
    envelope = dsse.sign(receipts.PAYLOAD_TYPE, body, [identity])
    with pytest.raises(ReceiptFormatError, match="not a receipt"):
        receipts.verify(envelope, key=identity.public_key)


def test_a_receipt_names_the_layers_of_the_cage(wasm: Wasm, identity: Identity) -> None:
    outcome = run(wasm("hello"), identity=identity)
    found = receipts.verify(outcome.receipt, key=identity.public_key)
    assert found.cage == outcome.execution.cage
    assert "filter" in found.cage


def test_a_job_that_met_its_limit_gets_a_receipt_that_says_so(wasm: Wasm, identity: Identity) -> None:
    outcome = run(wasm("flood"), identity=identity, limits=Limits(output_bytes=7))
    found = receipts.verify(outcome.receipt, key=identity.public_key, stdout=b"x" * 7)
    assert found.status == LimitHit("output")
    assert outcome.exit_code is None


def test_the_published_schemas_are_those_of_the_code() -> None:
    published = {path.name: json.loads(path.read_text()) for path in SCHEMAS.glob("*.json")}
    assert published == json.loads(json.dumps(receipts.schemas()))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({}, None),
        ({"status": {"kind": "completed"}}, "status"),
        ({"node": "short"}, "node"),
        ({"fuel_used": -1}, "fuel_used"),
        ({"started": "yesterday"}, "started"),
    ],
)
def test_the_schema_accepts_receipts_and_only_those(
    identity: Identity, outcome: Outcome, change: dict[str, object], where: str | None
) -> None:
    body = dsse.verify(outcome.receipt, keys=[identity.public_key], payload_type=receipts.PAYLOAD_TYPE)
    statement = json.loads(body)
    statement["predicate"] |= change
    schema = json.loads((SCHEMAS / "statement-v1.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    paths = [
        list(error.path)[:2] for error in jsonschema.Draft202012Validator(schema).iter_errors(statement)
    ]
    assert paths == ([] if where is None else [["predicate", where]])


def test_job_id_nonce_of_others_are_printed_printable(
    identity: Identity, outcome: Outcome, tmp_path: Path
) -> None:
    """Another implementation may have put anything into a receipt that it signed."""
    found = receipts.verify(outcome.receipt, key=identity.public_key)
    job = receipts.JobRef("x\x1b[31m\nsigned by  00", "\u202e\x9b2J\x7f")
    status = Rejected("no\x1b]0;title\x07")
    signed = receipts.issue(msgspec.structs.replace(found, job=job, status=status), identity)
    (tmp_path / "r.json").write_bytes(signed)
    words = ["verify", str(tmp_path / "r.json"), "--key", identity.public_key]
    text = CliRunner().invoke(receipt_command.command, words).stdout
    assert all(line.isprintable() for line in text.splitlines())
    assert [line.split()[0] for line in text.splitlines()].count("signed") == 1
    assert "x [31m signed by  00" in text
    as_json = CliRunner().invoke(receipt_command.command, [*words, "--json"]).stdout
    assert as_json.rstrip("\n").isprintable()
    assert as_json.isascii()
    assert json.loads(as_json)["job"] == {"id": job.id, "nonce": job.nonce}


@pytest.mark.parametrize(
    ("job_id", "nonce", "words"),
    [("x\ny", "", "job id has characters"), ("", "", "job id has 0"), (None, "n" * 129, "nonce has 129")],
)
def test_job_id_nonce_that_no_receipt_can_carry_are_refused_before_the_run(
    identity: Identity, job_id: str | None, nonce: str, words: str
) -> None:
    with pytest.raises(JobRefusedError, match=words):
        run(b"not even a module", identity=identity, job_id=job_id, nonce=nonce)


def test_a_receipt_says_who_asked_how_often_and_by_which_seed(wasm: Wasm, identity: Identity) -> None:
    job = Job(wasm("hello"), stdin=b"ab", seed=7)
    said = receipts.describe(
        job,
        execute(job),
        node=identity.public_key,
        job_id="j",
        nonce="",
        requester="ab" * 32,
        attempt=2,
    )
    envelope = receipts.issue(said, identity)
    found = receipts.verify(envelope, key=identity.public_key, requester="AB" * 32, seed=7)
    assert (found.requester, found.attempt, found.seed, found.deterministic) == ("ab" * 32, 2, 7, True)
    with pytest.raises(ReceiptBindingError, match="another requester"):
        receipts.verify(envelope, key=identity.public_key, requester="cd" * 32)
    with pytest.raises(ReceiptBindingError, match="another seed"):
        receipts.verify(envelope, key=identity.public_key, seed=8)


def test_a_receipt_without_them_verifies(identity: Identity, outcome: Outcome) -> None:
    body = json.loads(
        dsse.verify(outcome.receipt, keys=[identity.public_key], payload_type=receipts.PAYLOAD_TYPE)
    )
    for name in ("seed", "requester", "attempt"):
        assert body["predicate"].pop(name) is None
    old = dsse.sign(receipts.PAYLOAD_TYPE, json.dumps(body).encode(), [identity])
    found = receipts.verify(old, key=identity.public_key)
    assert (found.seed, found.requester, found.attempt, found.deterministic) == (None, None, None, False)
    with pytest.raises(ReceiptBindingError, match="another seed"):
        receipts.verify(old, key=identity.public_key, seed=0)
    with pytest.raises(ReceiptBindingError, match="another requester"):
        receipts.verify(old, key=identity.public_key, requester="ab" * 32)
