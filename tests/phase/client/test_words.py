"""Words that no node takes are found before anything is sent."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from phase.client import Client, ClientError, Task
from phase.client.book import Book, Remembered
from phase.peer.memory import Network
from phase.peer.transport import Address
from tests.phase.node.conftest import CAT, wasm

_NOWHERE = Address("ab" * 32, ("127.0.0.1:9",))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"job": "a b"}, r"the job id 'a b' has other characters than letters, digits and \. _ : -"),
        ({"job": "a\n"}, r"the job id 'a\\n' has other characters"),
        ({"job": ""}, "the job id has 0 characters; the limits are 1 and 128"),
        ({"job": "a" * 129}, "the job id has 129 characters"),
        ({"nonce": "é"}, r"the nonce '\\xe9' has other characters"),
        ({"nonce": "a" * 129}, "the nonce has 129 characters; the limits are 0 and 128"),
        ({"args": ("\udcff",)}, r"the argument '\\udcff' is not UTF-8"),
        ({"env": {"A": "\ud800"}}, r"the variable '\\ud800' is not UTF-8"),
        ({"outputs": ("\udcff",)}, r"the file '\\udcff' is not UTF-8"),
    ],
)
async def test_words_are_checked_before_a_node_is_called(more: dict[str, Any], words: str) -> None:
    of_task = {name: value for name, value in more.items() if name not in ("job", "nonce")}
    of_call = {name: value for name, value in more.items() if name not in of_task}
    client = Client(Network().join())  # nobody else is there: whoever is called is unreachable
    with pytest.raises(ClientError, match=words):
        await client.submit(_NOWHERE, Task(module=b"", **of_task), **of_call)


async def test_questions_are_checked_too() -> None:
    client = Client(Network().join())
    for call in (client.status, client.cancel, client.fetch):
        with pytest.raises(ClientError, match="the job id 'a b' has other characters"):
            await call(_NOWHERE, "a b")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["submit", "MODULE", b"\xff\xfe"], 129, rb"the argument '\udcff\udcfe' is not UTF-8"),
        (["submit", "--env", b"A=\xff", "MODULE"], 129, rb"the variable 'A=\udcff' is not UTF-8"),
        (["submit", "--job-id", "a\n", "MODULE"], 128, rb"the job id 'a\n' has other characters"),
        (["submit", "--nonce", "a b", "MODULE"], 128, b"the nonce 'a b' has other characters"),
        (["status", b"\xff"], 128, rb"the job id '\udcff' has other characters"),
    ],
)
def test_the_command_says_it_in_one_line(words: list[Any], code: int, said: bytes, tmp_path: Path) -> None:
    module = tmp_path / "cat.wasm"
    module.write_bytes(wasm(CAT))
    given = [module if each == "MODULE" else each for each in words]
    place = ["--state", tmp_path / "client", "--node", str(_NOWHERE)]
    command: list[Any] = [sys.executable, "-m", "phase", "job", given[0], *place, *given[1:]]
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
    assert (done.returncode, done.stderr.count(b"\n")) == (code, 1), done.stderr
    assert done.stderr.startswith(b"phase: ")
    assert said in done.stderr


def test_two_nodes_may_have_jobs_of_the_same_id(tmp_path: Path) -> None:
    book, nodes = Book(tmp_path / "not/there/yet"), [f"{digit * 64}@127.0.0.1:1" for digit in "ab"]
    asked = Task(module=b"x").asked("", "c" * 64)
    for number, node in enumerate([*nodes, nodes[0]]):
        book.write(Remembered(job="same", node=node, asked=asked, submitted=float(number)))
    assert [(each.node, each.submitted) for each in book.jobs()] == [(nodes[1], 1.0), (nodes[0], 2.0)]
    for node in nodes:
        found = book.find("same", node[:64])
        assert found is not None
        assert found.node == node
    with pytest.raises(ClientError, match=f"there is a job same at {nodes[0]} and {nodes[1]}"):
        book.find("same")
    assert book.find("other") is None
