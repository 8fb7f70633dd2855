"""Receipts: signed statements about a job, its input and its result.

An in-toto Statement v1 (in-toto attestation framework, spec v1.0) in a DSSE envelope. The
subject is the job's stdout; the predicate binds everything that produced it. A receipt proves that
the holder of the node key has made the statement; it does not prove that the node computed honestly.
"""

import hashlib
import platform
import time
from typing import Annotated, Literal

import msgspec

from phase import arch, dsse
from phase.errors import PhaseError
from phase.foreign import MalformedError, check_alike, read_json
from phase.identity import Identity
from phase.jobs import flow, location
from phase.jobs.errors import JobRefusedError, ReceiptBindingError, ReceiptFormatError, ReceiptSignatureError
from phase.jobs.limits import MAX_INTEGER, Limits
from phase.jobs.runner import Execution, Job
from phase.jobs.status import Status

PAYLOAD_TYPE = "application/vnd.in-toto+json"
#: Limit for a job id or a nonce, characters.
MAX_NAME = 128

# In Python, `$` also matches before a line feed at the end, and `\d` takes the digits of every script.
Hex256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
Nonce = Annotated[str, msgspec.Meta(max_length=MAX_NAME)]
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]
_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$"
Attempt = Annotated[int, msgspec.Meta(ge=1, le=MAX_INTEGER)]
Timestamp = Annotated[str, msgspec.Meta(pattern=_TIME, max_length=24)]


class Content(msgspec.Struct, frozen=True):
    """Some bytes, by their SHA-256 and length."""

    sha256: Hex256
    length: Count

    @classmethod
    def of(cls, passed: flow.Content) -> "Content":
        """From the counts of the runner."""
        return cls(passed.sha256, passed.length)


class JobRef(msgspec.Struct, frozen=True):
    """The job's id, and the value that its requester chose to make it fresh."""

    id: Name
    nonce: Nonce


class DirectoryRef(msgspec.Struct, frozen=True):
    """A directory of the node's machine: where the module found it, and whether it could change it."""

    guest: str
    writable: bool


class EngineRef(msgspec.Struct, frozen=True):
    """The engine that ran the module. Fuel is comparable only within one version."""

    name: Literal["wasmtime"]
    version: str
    arch: str


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """The predicate: the job, its input and limits, how and when it ended, and the node that says so.

    Args:
        job: id and nonce of the job.
        module: the module as it was given.
        args: arguments after the program's name.
        env: the whole environment.
        stdin: the input of the module: all of it if it was given as bytes; of a stream, the part that the
            module asked for.
        stdout: the output that the reader has taken.
        stderr: the same.
        limits: of the job.
        status: how it ended.
        fuel_used: units of fuel; null if not known. The engine counts in a register and stores the count
            when a function is called or left. So the count is known if the module returned, exited, ran out
            of fuel or reached `unreachable`, but not after other traps or an interruption.
        memory_bytes: peak of its linear memories, tables and objects together; null if not known.
        engine: the engine that ran it.
        cage: layers between the module and the machine; receipts of older nodes leave it out.
        started: when the worker got the job.
        finished: `wall_ms` later.
        wall_ms: milliseconds, including compiling and waiting for input and readers.
        node: public key of the signing node, hex.
        seed: of a deterministic job; null for any other, and in receipts of older nodes.
        requester: public key of the client that asked for the job, hex; null where it was asked for at the
            node itself.
        attempt: 1 for the first time that the requester had this job run, and so on; null if it does not
            count.
        inputs: the files that it found in `/input`, by their names.
        outputs: the files that it left in `/output`, of those that were asked for.
        directories: of the node's machine, that it could use; their content is not in the receipt.
    """

    job: JobRef
    module: Content
    args: tuple[str, ...]
    env: dict[str, str]
    stdin: Content
    stdout: Content
    stderr: Content
    limits: Limits
    status: Status
    fuel_used: Count | None
    memory_bytes: Count | None
    engine: EngineRef
    started: Timestamp
    finished: Timestamp
    wall_ms: Annotated[float, msgspec.Meta(ge=0)]
    node: Hex256
    cage: tuple[Name, ...] = ()
    seed: Count | None = None
    requester: Hex256 | None = None
    attempt: Attempt | None = None
    inputs: dict[str, Content] = msgspec.field(default_factory=dict)
    outputs: dict[str, Content] = msgspec.field(default_factory=dict)
    directories: tuple[DirectoryRef, ...] = ()

    @property
    def deterministic(self) -> bool:
        """Whether the same job gives the same output on every node."""
        return self.seed is not None


class Digest(msgspec.Struct, frozen=True):
    """An in-toto DigestSet with the one algorithm used here."""

    sha256: Hex256


class Subject(msgspec.Struct, frozen=True):
    """An in-toto ResourceDescriptor."""

    name: Literal["stdout"]
    digest: Digest


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """The in-toto Statement that is signed."""

    type: Literal["https://in-toto.io/Statement/v1"] = msgspec.field(name="_type")
    subject: Annotated[tuple[Subject, ...], msgspec.Meta(min_length=1, max_length=1)]
    predicate_type: Literal["https://phase.dev/receipt/v1"] = msgspec.field(name="predicateType")
    predicate: Receipt


def check_names(job_id: str | None, nonce: str) -> None:
    """Refuse a job id or a nonce that a receipt cannot carry, before the job runs.

    Args:
        job_id: 1 to 128 printable characters; None for a random one.
        nonce: at most 128 printable characters.

    Raises:
        JobRefusedError: one of them is wrong; the message says which one, and how.
    """
    for what, text, least in (("job id", job_id, 1), ("nonce", nonce, 0)):
        if text is None:
            continue
        if not least <= len(text) <= MAX_NAME:
            raise JobRefusedError(
                f"the {what} has {len(text)} characters; the limits are {least} and {MAX_NAME}"
            )
        # Bytes that are not UTF-8 arrive as surrogates, which are not printable either.
        if not text.isprintable():
            raise JobRefusedError(f"the {what} has characters that cannot be printed: {text!a}")


def describe(
    job: Job,
    execution: Execution,
    *,
    node: str,
    job_id: str,
    nonce: str,
    requester: str | None = None,
    attempt: int | None = None,
) -> Receipt:
    """Make an unsigned receipt.

    Args:
        job: the job.
        execution: its result.
        node: the signing node's public key, hex.
        job_id: at most 128 characters.
        nonce: chosen by the requester; may be empty.
        requester: public key of the client that asked for it, hex; None if it was asked for here.
        attempt: how often the requester has had this job run, with this time.
    """
    wall_ms = round(execution.wall_seconds * 1000, 3)
    # Both times have milliseconds: their difference is wall_ms, to one millisecond.
    finished = execution.started + wall_ms / 1000
    return Receipt(
        job=JobRef(job_id, nonce),
        module=Content(execution.module_sha256, len(job.module)),
        args=tuple(job.args),
        env=dict(job.env),
        stdin=Content.of(execution.input),
        stdout=Content.of(execution.output),
        stderr=Content.of(execution.errors),
        limits=job.limits,
        status=execution.status,
        fuel_used=execution.fuel_used,
        memory_bytes=execution.memory_bytes,
        engine=EngineRef("wasmtime", location.VERSION, arch.canonical(platform.machine())),
        started=_timestamp(execution.started),
        finished=_timestamp(finished),
        wall_ms=wall_ms,
        node=node,
        cage=execution.cage,
        seed=job.seed,
        requester=requester,
        attempt=attempt,
        inputs={name: _content(data) for name, data in job.inputs.items()},
        outputs={name: _content(data) for name, data in execution.files.items()},
        directories=tuple(DirectoryRef(each.guest, each.writable) for each in job.directories),
    )


def issue(receipt: Receipt, identity: Identity) -> bytes:
    """Sign a receipt.

    Args:
        receipt: with `node` set to the identity's public key.
        identity: the node's.

    Returns:
        A DSSE envelope, JSON.
    """
    statement = Statement(
        type="https://in-toto.io/Statement/v1",
        subject=(Subject("stdout", Digest(receipt.stdout.sha256)),),
        predicate_type="https://phase.dev/receipt/v1",
        predicate=receipt,
    )
    return dsse.sign(PAYLOAD_TYPE, msgspec.json.encode(statement), [identity])


def verify(
    envelope: bytes,
    *,
    key: str,
    job_id: str | None = None,
    nonce: str | None = None,
    module_sha256: str | None = None,
    stdout: bytes | None = None,
    stdout_sha256: str | None = None,
    requester: str | None = None,
    seed: int | None = None,
) -> Receipt:
    """Check a receipt against a pinned key and what was asked.

    Args:
        envelope: the DSSE envelope.
        key: the node's public key, 64 hex digits, known from elsewhere.
        job_id: the expected job.
        nonce: the expected nonce.
        module_sha256: the expected module, hex.
        stdout: the expected output.
        stdout_sha256: or its hash, hex, where the output itself is elsewhere.
        requester: the expected client's public key, hex.
        seed: the expected seed of a deterministic job.

    Returns:
        The receipt, from the signed bytes.

    Raises:
        ReceiptSignatureError: it is not signed by this key, or is not a DSSE envelope.
        ReceiptFormatError: it is signed, but is not a receipt, or not one that all readers read alike.
        ReceiptBindingError: it is a receipt of something else.
    """
    body = _signed(envelope, key)
    try:
        check_alike(body)
        statement = read_json(body, Statement)
    except MalformedError as error:
        raise ReceiptFormatError(f"the signed statement is not a receipt: {error}") from error
    receipt = statement.predicate
    found_stdout = statement.subject[0].digest.sha256
    bindings = [
        ("node key", key.lower(), receipt.node),
        ("subject", receipt.stdout.sha256, found_stdout),
        ("job id", job_id, receipt.job.id),
        ("nonce", nonce, receipt.job.nonce),
        ("module", module_sha256 and module_sha256.lower(), receipt.module.sha256),
        ("stdout", stdout_sha256 and stdout_sha256.lower(), receipt.stdout.sha256),
        ("requester", requester and requester.lower(), receipt.requester or "-"),
        ("seed", None if seed is None else str(seed), str(receipt.seed)),
        ("stdout", None if stdout is None else hashlib.sha256(stdout).hexdigest(), receipt.stdout.sha256),
    ]
    for field, expected, found in bindings:
        if expected is not None and expected != found:
            raise ReceiptBindingError(field, expected=expected, found=found)
    return receipt


def _signed(envelope: bytes, key: str) -> bytes:
    """The bytes that the key has signed."""
    try:
        body = dsse.verify(envelope, keys=[key.lower()], payload_type=PAYLOAD_TYPE)
        check_alike(envelope)
    except dsse.DsseSignatureError as error:
        raise ReceiptSignatureError(
            f"the receipt was changed after it was signed, or it was signed by another key than {key}",
            hint="Get the receipt again, and compare the key with what `phase init` prints on the node.",
        ) from error
    except (PhaseError, MalformedError) as error:
        raise ReceiptSignatureError(f"the receipt is not signed by {key[:80]}: {error}") from error
    return body


def schemas() -> dict[str, dict[str, object]]:
    """The published JSON schemas (draft 2020-12), by file name."""
    published = {"receipt-v1.json": Receipt, "statement-v1.json": Statement, "limits-v1.json": Limits}
    found = {}
    for name, kind in published.items():
        schema = msgspec.json.schema(kind)
        found[name] = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": f"https://phase.dev/schemas/{name}",
            **schema,
        }
    return found


def _content(data: bytes) -> Content:
    return Content(hashlib.sha256(data).hexdigest(), len(data))


def _timestamp(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds * 1000) % 1000:03d}Z"
