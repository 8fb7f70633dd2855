"""docs/use/nodes.md says what is so."""

import dataclasses
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from wasmtime import wat2wasm

from phase.identity import Identity
from phase.peer.messages import Reason, State
from tests import pages
from tests.phase.node.service import Node, begin

NAME = "docs/use/nodes.md"
PAGE = (pages.PROJECT / NAME).read_text()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    client = Identity.load_or_create(tmp_path / "client/identity.json")
    (tmp_path / "hello.wasm").write_bytes(
        bytes(wat2wasm((pages.PROJECT / "fixtures/hello.wat").read_text()))
    )
    found = begin(tmp_path, "--allow", client.public_key)
    try:
        yield found
    finally:
        found.end()


def test_the_page_names_every_reason_and_state() -> None:
    assert all(f"`{reason.value}`" in PAGE for reason in Reason)
    assert all(f"`{state.value}`" in PAGE for state in State)


def test_the_session(node: Node, tmp_path: Path) -> None:
    """As printed, with key and address of this run's node in place of the page's."""
    where = node.address.partition("@")[2].split(",")[0]
    found = [
        dataclasses.replace(
            each,
            lines=tuple(
                re.sub(r"^(\$ node=)\w+", rf"\g<1>{node.key}", line).replace("192.0.2.7:8470", where)
                for line in each.lines
            ),
        )
        for each in pages.chosen(NAME, "test_the_session")
    ]
    said = pages.run(found, tmp_path, pages.environment(tmp_path, {"PHASE_STATE": str(tmp_path / "client")}))
    assert f"signed by  {node.key}" in said


def test_the_program(node: Node, tmp_path: Path) -> None:
    program = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0]
    program = program.replace("KEY@127.0.0.1:8470", node.address)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=pages.environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout.split()[:2], done.stderr) == (["dlroW", ",olleH"], "")
