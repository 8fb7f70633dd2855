"""`phase node` and `phase job` as people run them: real processes, real QUIC on loopback."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from phase.identity import Identity
from phase.jobs import receipt as receipts
from tests.phase.node.conftest import CAT, COPY, LOOP, wasm
from tests.phase.node.service import Node, begin

_EXIT7 = '(memory (export "memory") 1) (func (export "_start") (call $proc_exit (i32.const 7)))'


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    client = Identity.load_or_create(tmp_path / "client/identity.json")
    found = begin(tmp_path, "--allow", client.public_key)
    try:
        yield found
    finally:
        found.end()


def test_a_job_runs_at_a_node_and_its_receipt_is_verified(node: Node, tmp_path: Path) -> None:
    module = tmp_path / "cat.wasm"
    module.write_bytes(wasm(CAT))
    words = ("submit", "--node", node.address, "--receipt", str(tmp_path / "r.json"), "--nonce", "mine")
    done = node.job(*words, "--job-id", "one", str(module), stdin=b"Hello")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"Hello", b"")
    envelope = (tmp_path / "r.json").read_bytes()
    said = receipts.verify(envelope, key=node.key, job_id="one", nonce="mine", stdout=b"Hello")
    assert said.module.length == len(wasm(CAT))
    node.process.send_signal(signal.SIGTERM)
    assert node.process.wait(30) == 0


def test_files_of_a_job_go_to_the_node_and_back(node: Node, tmp_path: Path) -> None:
    module, table, out = tmp_path / "copy.wasm", tmp_path / "table.csv", tmp_path / "out.csv"
    module.write_bytes(wasm(COPY))
    table.write_bytes(b"a,b")
    words = ("submit", "--no-stdin", "--node", node.address, "--input", f"in={table}")
    done = node.job(*words, "--output", f"out={out}", str(module))
    assert (done.returncode, done.stderr, out.read_bytes()) == (0, b"", b"a,b")
    later = node.job(*words, "--detach", "--job-id", "later", "--output", "out", str(module))
    assert later.returncode == 0
    out.unlink()
    assert node.job("result", "later", "--output", f"out={out}").returncode == 0
    assert out.read_bytes() == b"a,b"
    lost = node.job(*words, "--output", f"other={out}", str(module))
    assert (lost.returncode, b"output other is lost" in lost.stderr) == (141, True)


def test_exit_codes_tell_the_module_from_the_node_and_the_network(node: Node, tmp_path: Path) -> None:
    seven, loop = tmp_path / "seven.wasm", tmp_path / "loop.wasm"
    seven.write_bytes(wasm(_EXIT7))
    loop.write_bytes(wasm(LOOP))
    here = ("submit", "--no-stdin", "--node", node.address)
    assert node.job(*here, str(seven)).returncode == 7
    limited = node.job(*here, "--fuel", "1000", str(loop))
    assert (limited.returncode, limited.stderr.endswith(b"stopped at its fuel limit\n")) == (152, True)
    refused = node.job(*here, "--wall", "80000", str(loop))
    assert refused.returncode == 160
    assert b"the node refuses: insufficient resources" in refused.stderr
    assert node.job(*here, str(tmp_path / "none.wasm")).returncode == 127
    other = Identity.ephemeral().public_key
    lost = node.job(
        "submit", "--no-stdin", "--node", f"{other}@{node.address.partition('@')[2]}", str(seven)
    )
    assert (lost.returncode, lost.stderr[:7]) == (161, b"phase: ")


def test_all_addresses_of_both_families_are_listened_on(tmp_path: Path) -> None:
    """As where nobody says `--listen`, but on a free port: each TCP address is opened once."""
    found = begin(tmp_path, listen=("0.0.0.0:0", "[::]:0"))
    port = found.address.rpartition(":")[2]
    try:
        for host in ("127.0.0.1", "[::1]"):
            with urlopen(f"http://{host}:{port}/health", timeout=20) as answer:
                assert answer.read() == b"ok\n"
    finally:
        found.end()


def test_a_stranger_is_told_that_it_is_not_allowed(node: Node, tmp_path: Path) -> None:
    module = tmp_path / "cat.wasm"
    module.write_bytes(wasm(CAT))
    (tmp_path / "client/identity.json").unlink()
    done = node.job("submit", "--node", node.address, str(module))
    assert done.returncode == 160
    assert done.stderr.startswith(b"phase: the node refuses: not authorised")


def test_a_detached_job_is_followed_by_its_id(node: Node, tmp_path: Path) -> None:
    module = tmp_path / "cat.wasm"
    module.write_bytes(wasm(CAT))
    done = node.job(
        "submit", "--detach", "--job-id", "d", "--node", node.address, str(module), stdin=b"kept"
    )
    assert (done.returncode, done.stdout) == (0, b"job d\n")
    assert node.job("result", "d").stdout == b"kept"
    assert node.job("status", "d").stdout == b"d  done  exited with code 0\n"
    assert json.loads(node.job("list", "--node", node.address, "--json").stdout)["kept"] is True
    assert node.job("list").stdout.startswith(b"d  " + node.key.encode())
    assert node.job("result", "e").returncode == 128
    assert node.job("submit", "--job-id", "a", "--node", node.address, str(module)).returncode == 0
    gone = node.job("result", "a", "--node", node.address)
    assert (gone.returncode, b"does not keep its result" in gone.stderr) == (160, True)


def test_a_node_that_was_killed_answers_no_job_twice(node: Node, tmp_path: Path) -> None:
    """What it had is lost, what it kept is there, and no id is taken again."""
    cat, loop = tmp_path / "cat.wasm", tmp_path / "loop.wasm"
    cat.write_bytes(wasm(CAT))
    loop.write_bytes(wasm(LOOP))
    assert node.job("submit", "--job-id", "done", "--node", node.address, str(cat)).returncode == 0
    kept = ("submit", "--detach", "--job-id", "kept", "--node", node.address, str(cat))
    assert node.job(*kept, stdin=b"kept").returncode == 0
    assert node.job("result", "kept").stdout == b"kept"
    runs = ("submit", "--detach", "--no-stdin", "--job-id", "runs", "--node", node.address, str(loop))
    assert node.job(*runs).returncode == 0
    node.end()
    client = Identity.load(tmp_path / "client/identity.json")
    again = begin(tmp_path, "--allow", client.public_key)
    try:
        for job, word in (("done", b"done"), ("kept", b"done"), ("runs", b"lost")):
            assert node.job("status", job, "--node", again.address).stdout.split()[1] == word
            twice = node.job("submit", "--job-id", job, "--node", again.address, str(cat))
            assert (twice.returncode, b"duplicate" in twice.stderr) == (160, True)
        assert node.job("result", "kept", "--node", again.address).stdout == b"kept"
        assert node.job("result", "runs", "--node", again.address).returncode == 162
    finally:
        again.end()


def test_a_node_that_ends_answers_until_its_jobs_have(node: Node, tmp_path: Path) -> None:
    """And gives out what came of them: who waits for a result hears of it."""
    loop = tmp_path / "loop.wasm"
    loop.write_bytes(wasm(LOOP))
    words = ("submit", "--no-stdin", "--node", node.address, "--wall", "4", "--fuel", "9000000000000")
    assert node.job(*words, "--detach", "--job-id", "long", str(loop)).returncode == 0
    node.process.send_signal(signal.SIGTERM)
    host = node.address.partition("@")[2].partition(",")[0]
    until = time.monotonic() + 20
    said = b""
    while said != b"stopping\n":
        assert time.monotonic() < until
        with urlopen(f"http://{host}/health", timeout=20) as answer:
            said = answer.read()
    ended = node.job("result", "long")
    assert (ended.returncode, ended.stderr.endswith(b"stopped at its wall limit\n")) == (142, True)
    assert node.process.wait(30) == 0
