"""`phase job` in this process, at nodes of this process: what a person sees, file by file and line by line.

`tests/phase/node/test_service.py` has the same commands as processes, at a node that is one.
"""

import asyncio
import base64
import functools
import hashlib
import json
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from phase.arch import ARCHES
from phase.cli import _outcome, _submit, peers
from phase.cli.run import LostError
from phase.client import (
    Client,
    JobLostError,
    NotKeptError,
    NotRunError,
    RejectedError,
    Task,
    UntrueError,
    copies,
)
from phase.client.copies import Agreement
from phase.identity import Identity
from phase.jobs import receipt as receipts
from phase.jobs.limits import Limits
from phase.peer import publish
from phase.peer.errors import PeerError
from phase.peer.messages import Reason, State
from phase.peer.records import Capability
from phase.peer.transport import Address
from tests.phase.cli.conftest import Ended, Inside
from tests.phase.cli.nodes import CLOSED, HONEST, LIAR, running
from tests.phase.node.conftest import CAT, COPY, LOOP, wasm

_MODULES = {
    "cat": CAT,
    "copy": COPY,
    "loop": LOOP,
    "seven": '(memory (export "memory") 1) (func (export "_start") (call $proc_exit (i32.const 7)))',
    "errors": """(memory (export "memory") 1) (data (i32.const 64) "help!")
      (func (export "_start")
        (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 5))
        (drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8))))""",
}


class Place(NamedTuple):
    """A client's directory, and nodes that allow it: honest ones, a liar, and one that allows nobody."""

    directory: Path
    nodes: list[str]

    def module(self, name: str) -> str:
        return str(self.directory / f"{name}.wasm")

    def key(self, number: int = 0) -> str:
        return self.nodes[number].partition("@")[0]


Job = Callable[..., Ended]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("place")
    client = Identity.load_or_create(directory / "state/identity.json")
    for name, body in _MODULES.items():
        (directory / f"{name}.wasm").write_bytes(wasm(body))
    with running(directory, client.public_key, (HONEST, HONEST, LIAR, CLOSED)) as nodes:
        yield Place(directory, nodes)


@pytest.fixture
def job(place: Place, inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """Run `phase job ...` as the client that the nodes allow."""
    monkeypatch.setenv("PHASE_STATE", str(place.directory / "state"))
    monkeypatch.chdir(tmp_path)
    return functools.partial(inside, "job")


def test_a_job_and_all_that_is_said_of_it(job: Job, place: Place, tmp_path: Path) -> None:
    """Arguments, variables and limits reach the node: they are in the receipt, which it has signed."""
    names = ("--receipt", "r.json", "--nonce", "mine", "--job-id", "one", "--env", "NAME=value")
    words = (*names, "--fuel", "123456", "--memory", "32", "--scratch", "1")
    done = job("submit", "--node", place.nodes[0], *words, place.module("cat"), "a", "b", stdin=b"Hello")
    assert done == (0, b"Hello", "")
    envelope = (tmp_path / "r.json").read_bytes()
    said = receipts.verify(envelope, key=place.key(), job_id="one", nonce="mine", stdout=b"Hello")
    assert (said.args, said.env, said.seed) == (("a", "b"), {"NAME": "value"}, None)
    assert (said.limits.fuel, said.limits.memory_bytes) == (123456, 32 << 20)
    assert said.limits.scratch_bytes == 1 << 20


def test_the_module_s_error_output_is_this_one_s(job: Job, place: Place) -> None:
    assert job("submit", "--no-stdin", "--node", place.nodes[0], place.module("errors")) == (0, b"", "help!")


@pytest.mark.parametrize("options", [("--deterministic",), ("--no-stdin",), ("--no-stdin", "--seed", "7")])
def test_input_is_read_where_it_is_wanted(job: Job, place: Place, options: tuple[str, ...]) -> None:
    done = job("submit", "--node", place.nodes[0], *options, place.module("cat"), stdin=b"Hello")
    assert done == (0, b"" if "--no-stdin" in options else b"Hello", "")


@pytest.mark.parametrize("name", ["table", "/dev/null"])
def test_input_may_be_a_file_or_a_device(job: Job, place: Place, tmp_path: Path, name: str) -> None:
    (tmp_path / "table").write_bytes(b"a,b\n" * 50_000)
    given = tmp_path / name
    done = job("submit", "--node", place.nodes[0], place.module("cat"), stdin=given)
    assert done == (0, given.read_bytes(), "")


def test_files_go_there_and_back_by_their_names(job: Job, place: Place, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes(b"a,b")
    words = ("submit", "--no-stdin", "--node", place.nodes[0], "--input", "in=table.csv")
    assert job(*words, "--output", "out=copy.csv", place.module("copy")) == (0, b"", "")
    assert (tmp_path / "copy.csv").read_bytes() == b"a,b"
    done = job(*words, "--output", "out", "--output", "other", place.module("copy"))
    assert (tmp_path / "out").read_bytes() == b"a,b"
    assert done.code == _outcome.LOST
    assert done.err == (
        f"phase: output other is lost: {place.module('copy')} has left no file of that name\n"
    )


def test_scripts_get_one_object_with_output_and_receipt(job: Job, place: Place) -> None:
    words = ("submit", "--json", "--node", place.nodes[0], "--nonce", "n", "--job-id", "for-scripts")
    done = job(*words, place.module("cat"), stdin=b"Hello")
    found = json.loads(done.out)
    assert (done.code, found["exit_code"], found["job"]) == (0, 0, "for-scripts")
    assert (found["node"], found["nonce"], found["stderr"]) == (place.key(), "n", "")
    assert base64.b64decode(found["stdout"]) == b"Hello"
    assert receipts.verify(base64.b64decode(found["receipt"]), key=place.key(), stdout=b"Hello")
    stopped = job(
        "submit", "--json", "--no-stdin", "--node", place.nodes[0], "--fuel", "9", place.module("loop")
    )
    assert (stopped.code, stopped.err, json.loads(stopped.out)["status"]["limit"]) == (152, "", "fuel")


def test_the_end_of_a_module_is_the_end_of_the_command(job: Job, place: Place) -> None:
    here = ("submit", "--no-stdin", "--node", place.nodes[0])
    assert job(*here, place.module("seven")) == (7, b"", "")
    stopped = job(*here, "--job-id", "stopped", "--fuel", "1000", place.module("loop"))
    assert stopped == (152, b"", "phase: job stopped stopped at its fuel limit\n")


def test_a_detached_job_is_followed_from_here(job: Job, place: Place, tmp_path: Path) -> None:
    begun = job(
        "submit", "--detach", "--job-id", "kept", "--output", "out", "--node", place.nodes[0],
        place.module("cat"), stdin=b"kept",
    )  # fmt: skip
    assert begun == (0, b"job kept\n", "")
    done = job("result", "kept", "--receipt", "r.json")
    assert done == (0, b"kept", "")
    assert receipts.verify(
        (tmp_path / "r.json").read_bytes(), key=place.key(), job_id="kept", stdout=b"kept"
    )
    assert job("status", "kept") == (0, b"kept  done  exited with code 0\n", "")
    assert b"kept  done  exited with code 0\n" in job("list", "--node", place.nodes[0]).out
    assert f"kept  {place.nodes[0]}\n".encode() in job("list").out
    listed = [json.loads(line) for line in job("list", "--json").out.splitlines()]
    assert {"job": "kept", "node": place.key()} in listed
    lost = job("result", "kept", "--output", "out=here")
    assert (lost.code, lost.out) == (_outcome.LOST, b"kept")
    assert lost.err == "phase: output out is lost: job kept has left no file of that name\n"
    found = json.loads(job("result", "kept", "--json").out)
    assert base64.b64decode(found["stdout"]) == b"kept"


def test_a_result_is_what_was_asked_for_or_it_is_not_believed(job: Job, place: Place) -> None:
    """What was submitted from here is known, so that a receipt of another job is found out."""
    for name in ("mine", "other"):
        words = ("submit", "--detach", "--no-stdin", "--job-id", name, "--node", place.nodes[0])
        assert json.loads(job(*words, "--json", "--", place.module("cat"), name).out)["job"] == name
    book = _submit.book(place.directory / "state")
    mine, other = book.find("mine"), book.find("other")
    assert mine is not None
    assert other is not None
    book.write(msgspec.structs.replace(mine, asked=other.asked))
    done = job("result", "mine")
    assert (done.code, done.out) == (_outcome.UNTRUE, b"")
    assert done.err.startswith("phase: ")


def test_a_job_is_ended(job: Job, place: Place) -> None:
    words = ("submit", "--detach", "--no-stdin", "--job-id", "long", "--node", place.nodes[1])
    assert json.loads(job(*words, "--json", place.module("loop")).out) == {
        "job": "long",
        "node": place.key(1),
    }
    assert job("cancel", "long", "--node", place.nodes[1]).code == 0
    ended = job("result", "long")
    assert ended == (143, b"", "phase: job long ended by signal 15: cancelled by its requester\n")
    assert json.loads(job("status", "--json", "long").out)["state"] == "done"


def test_a_job_that_is_not_known(job: Job, place: Place) -> None:
    for word in ("result", "status", "cancel"):
        refused = job(word, "none")
        assert refused.code == _outcome.FAILED
        assert refused.err == (
            "phase: job none was not detached from here. Name its node: --node KEY@HOST:PORT.\n"
        )
        there = job(word, "none", "--node", place.nodes[0])
        assert (there.code, there.out, there.err[:7]) == (_outcome.REFUSED, b"", "phase: ")


def test_a_node_that_refuses_lists_nothing_and_that_is_no_success(job: Job, place: Place) -> None:
    for words in (("list",), ("status", "any"), ("cancel", "any")):
        done = job(*words, "--node", place.nodes[3])
        assert (done.code, done.out) == (_outcome.REFUSED, b"")
        assert done.err.startswith("phase: the node refuses: not authorised")


def test_what_is_no_address_is_refused_before_anybody_is_asked(job: Job, place: Place) -> None:
    for words in (("list",), ("status", "any"), ("submit", "--no-stdin", place.module("cat"))):
        done = job(words[0], "--node", "nonsense", *words[1:])
        assert (done.code, done.out) == (_outcome.FAILED, b"")
        assert "'nonsense' is not a node's key: it has 64 hex digits" in done.err


def test_the_next_node_is_tried_where_one_refuses(job: Job, place: Place) -> None:
    both = ("--node", place.nodes[3], "--node", place.nodes[0])
    done = job("submit", *both, place.module("cat"), stdin=b"Hello")
    assert (done.code, done.out) == (0, b"Hello")
    assert done.err.startswith(f"phase: {place.key(3)[:16]}: the node refuses: not authorised")
    assert done.err.endswith("; trying the next node\n")
    alone = job("submit", "--no-stdin", "--node", place.nodes[3], place.module("cat"))
    assert (alone.code, "not authorised" in alone.err) == (_outcome.REFUSED, True)
    # What every node would refuse is not tried elsewhere.
    whole = ("submit", "--no-stdin", "--node", place.nodes[0], "--node", place.nodes[1], "--job-id", "twice")
    assert job(*whole, place.module("cat")).code == 0
    twice = job(*whole, place.module("cat"))
    assert (twice.code, twice.err.count("\n"), "duplicate" in twice.err) == (_outcome.REFUSED, 1, True)


def _nodes(place: Place, *numbers: int) -> list[str]:
    return [word for number in numbers for word in ("--node", place.nodes[number])]


def _payload(envelope: bytes) -> str:
    return base64.b64decode(json.loads(envelope)["payload"]).decode()


def test_copies_that_agree_are_one_result(job: Job, place: Place, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes(b"a,b")
    words = ("submit", "--copies", "2/2", "--deterministic", "--no-stdin", "--receipt", "r.json")
    files = ("--input", "in=table.csv", "--output", "out")
    assert job(*words, *_nodes(place, 0, 1), *files, place.module("copy")) == (0, b"", "")
    assert (tmp_path / "out").read_bytes() == b"a,b"
    lines = (tmp_path / "r.json").read_bytes().splitlines()
    assert len(lines) == 2
    for key in (place.key(0), place.key(1)):
        (said,) = (line for line in lines if key in _payload(line))
        assert receipts.verify(said, key=key).seed == 0
    lost = job(*words, *_nodes(place, 0, 1), *files, "--output", "none", place.module("copy"))
    assert (lost.code, "output none is lost" in lost.err) == (_outcome.LOST, True)
    found = job(*words, "--json", *_nodes(place, 0, 1), place.module("errors"))
    assert base64.b64decode(json.loads(found.out)["stderr"]) == b"help!"
    assert job(*words, *_nodes(place, 0, 1), place.module("errors")) == (0, b"", "help!")
    assert job(*words, *_nodes(place, 0, 1), place.module("seven")).code == 7


async def _all(client: Client, nodes: Sequence[Address], task: Task, *_: object, **__: object) -> Agreement:
    """What two honest nodes, a liar and a closed one have said, all of it."""
    asked = (client.run(node, task) for node in nodes)
    one, lie, refused, other = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(refused, RejectedError)
    results: Any = (one, other, lie)
    return Agreement(
        result=results[0], agreed=results[:2], others=results[2:], failed={nodes[2].key: refused}
    )


def test_copies_say_who_differs_and_who_gave_nothing(
    job: Job, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Usually a command ends when enough nodes agree, whichever these are."""
    monkeypatch.setattr(copies, "run", _all)
    words = ("submit", "--copies", "2/4", "--seed", "1")
    done = job(*words, *_nodes(place, 0, 2, 3, 1), place.module("cat"), stdin=b"Hello")
    assert (done.code, done.out) == (0, b"Hello")
    refused, differs = done.err.splitlines()
    assert refused.startswith(f"phase: {place.key(3)[:16]}: the node refuses: not authorised")
    lie = hashlib.sha256(b"a lie").hexdigest()
    assert differs == f"phase: node {place.key(2)} says something else: stdout sha256:{lie}"


def test_copies_that_disagree_are_shown_with_all_receipts(job: Job, place: Place, tmp_path: Path) -> None:
    words = ("submit", "--copies", "2/3", "--seed", "1", "--receipt", "r.json")
    done = job(*words, *_nodes(place, 0, 2, 3), place.module("cat"), stdin=b"Hello")
    assert (done.code, done.out) == (_outcome.DISAGREED, b"")
    said = done.err.splitlines()
    for text, number in ((b"Hello", 0), (b"a lie", 2)):
        digest = hashlib.sha256(text).hexdigest()
        assert f"phase: exited with code 0, stdout sha256:{digest}: {place.key(number)}" in said
    assert any(line.startswith(f"phase: {place.key(3)}: the node refuses") for line in said)
    assert len((tmp_path / "r.json").read_bytes().splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--copies", "2"), "'2' is not K/N, such as 2/3"),
        (("--copies", "3/2"), "'3/2' is not K/N"),
        (("--copies", "0/2"), "'0/2' is not K/N"),
        (("--copies", "2/3"), "3 copies need as many nodes; there are 2"),
        (("--copies", "2/2"), "--copies is for jobs with --deterministic or --seed"),
        (("--copies", "2/2", "--seed", "1", "--detach"), "and without --detach"),
        (("--env", "A=\udcff"), "variable"),
        (("--env", "A"), "'A' is not NAME=VALUE"),
    ],
)
def test_what_is_typed_wrongly(job: Job, place: Place, words: tuple[str, ...], said: str) -> None:
    done = job("submit", "--no-stdin", *_nodes(place, 0, 1), *words, place.module("cat"))
    assert (done.code, done.out, said in done.err) == (_outcome.USAGE, b"", True), done


def test_what_no_node_takes_is_refused_here(job: Job, place: Place) -> None:
    missing = job("submit", place.module("cat"))
    assert (missing.code, "--node is missing: KEY[@HOST:PORT]" in missing.err) == (_outcome.USAGE, True)
    here = ("submit", "--no-stdin", "--node", place.nodes[0])
    for words, said in (
        (("--job-id", "a b/"), "job id"),
        (("--nonce", "x" * 1000), "nonce"),
    ):
        done = job(*here, *words, place.module("cat"))
        assert (done.code, said in done.err, done.err.count("\n")) == (_outcome.FAILED, True, 1), done
    argument = job(*here, place.module("cat"), "\udcff")
    assert (argument.code, "argument" in argument.err) == (_outcome.USAGE, True), argument
    for word in ("result", "status"):
        done = job(word, "a b/")
        assert (done.code, "job id" in done.err) == (_outcome.FAILED, True)
    none = job(*here, str(place.directory / "none.wasm"))
    assert none.code == _outcome.NOT_FOUND


def test_all_of_the_input_of_a_deterministic_job_has_a_limit(
    job: Job, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_submit.Options, "limits", lambda _: Limits(stdin_bytes=5))
    here = ("submit", "--seed", "1", "--node", place.nodes[0], place.module("cat"))
    assert job(*here, stdin=b"12345") == (0, b"12345", "")
    much = job(*here, stdin=b"123456")
    assert much == (_outcome.FAILED, b"", "phase: the input has more than 5 bytes, its limit\n")


def test_a_person_is_told_how_many_wait(job: Job, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node has one slot: of two jobs without an end, one waits."""
    node, said = place.nodes[1], []
    for name in ("endless", "next"):
        words = ("submit", "--detach", "--no-stdin", "--job-id", name, "--node", node)
        assert job(*words, place.module("loop")).code == 0

    async def cancel() -> None:
        async with Client.open(Identity.load(place.directory / "state/identity.json")) as client:
            for name in ("endless", "next"):
                await client.cancel(node, name)

    def note(text: str) -> None:
        said.append(text)
        threading.Thread(target=lambda: asyncio.run(cancel())).start()

    monkeypatch.setattr(_submit, "note", note)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert job("submit", "--no-stdin", "--node", node, place.module("seven")).code == 7
    assert said == ["jobs that wait before this one: 1"]
    never = job("result", "next")
    assert (never.code, never.out) == (_outcome.NOT_RUN, b"")


def test_nodes_are_looked_for_where_none_is_named(
    job: Job, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def find(*words: object, **more: object) -> AsyncIterator[Capability]:
        asked.append((words, more))
        if len(asked) == 1:
            key, _, hosts = place.nodes[0].partition("@")
            yield Capability(
                key=key, arch="x86_64", runtimes=("wasi-preview1",), hosts=tuple(hosts.split(",")),
                processors=1, memory=100, slots=1,
            )  # fmt: skip

    monkeypatch.setattr(publish, "find", find)
    here = ("submit", "--dht", "127.0.0.1:1", "--memory", "100", place.module("cat"))
    assert job(*here, stdin=b"Hello") == (0, b"Hello", "")
    assert asked == [((ARCHES, "wasi-preview1"), {"peers": (("127.0.0.1", 1),), "timeout": 5.0})]
    nobody = job(*here)
    assert (nobody.code, nobody.out) == (_outcome.UNREACHABLE, b"")
    assert nobody.err == (
        "phase: no node with wasi-preview1, architecture any and 100 MiB was found. "
        "`phase peers` shows those that there are.\n"
    )


def test_as_many_nodes_are_looked_for_as_there_are_copies(
    job: Job, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def find(*words: object, **more: object) -> AsyncIterator[Capability]:
        for address in place.nodes[:2]:
            key, _, hosts = address.partition("@")
            yield Capability(
                key=key, arch="x86_64", runtimes=("wasi-preview1",), hosts=tuple(hosts.split(",")),
                processors=1, memory=1 << 20, slots=1,
            )  # fmt: skip
        await asyncio.Event().wait()

    monkeypatch.setattr(publish, "find", find)
    monkeypatch.setattr(peers, "OTHERS_SECONDS", 0.0)
    words = ("submit", "--dht", "127.0.0.1:1", "--copies", "2/2", "--seed", "1", place.module("cat"))
    assert job(*words, stdin=b"Hello") == (0, b"Hello", "")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), _outcome.INTERRUPTED),
        (LostError("gone"), _outcome.LOST),
        (RejectedError(Reason.INVALID_REQUEST, "gone"), _outcome.REFUSED),
        (NotKeptError("job", "gone"), _outcome.REFUSED),
        (JobLostError("job", "gone"), _outcome.JOB_LOST),
        (NotRunError(State.RETURNED, "gone"), _outcome.NOT_RUN),
        (UntrueError("gone"), _outcome.UNTRUE),
        (PeerError("gone"), _outcome.UNREACHABLE),
    ],
)
def test_each_way_to_fail_at_a_node_has_its_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error: BaseException, code: int
) -> None:
    async def fail(_: Client) -> int:
        raise error

    assert _submit.with_client(tmp_path, fail) == code
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n"), said.err[:7]) == ("", 1, "phase: ")
    assert ("interrupted" if code == _outcome.INTERRUPTED else "gone") in said.err


def test_output_that_nobody_takes_is_lost(job: Job, place: Place) -> None:
    kept, full = os.dup(1), os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 1)
    try:
        done = job("submit", "--node", place.nodes[0], place.module("cat"), stdin=b"Hello")
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(full)
    assert (done.code, "stdout of the module is lost: No space left on device" in done.err) == (141, True)


def test_a_receipt_that_cannot_be_written(job: Job, place: Place, tmp_path: Path) -> None:
    done = job("submit", "--no-stdin", "--node", place.nodes[0], "--receipt", "none/r", place.module("cat"))
    assert (done.code, done.out) == (_outcome.FAILED, b"")
    assert "receipt none/r cannot be written" in done.err
