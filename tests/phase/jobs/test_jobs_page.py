"""docs/use/jobs.md says what is so."""

import dataclasses
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from fixtures.modules import corpus
from phase import dsse
from phase.identity import Identity
from phase.jobs.limits import MIB, Limits
from phase.jobs.receipt import Content, Digest, EngineRef, JobRef, Receipt, Statement, Subject
from phase.jobs.status import Status
from tests import pages

NAME = "docs/use/jobs.md"
PAGE = (Path(__file__).parents[3] / "docs/use/jobs.md").read_text()
_SUFFIX = {"C": "c", "C++": "cc", "Rust": "rs", "Zig": "zig", "AssemblyScript": "ts"}


@pytest.mark.parametrize("name", [n for n, each in corpus.toolchains().items() if each.language in _SUFFIX])
def test_the_page_has_the_command_that_built_the_corpus(name: str) -> None:
    toolchain = corpus.toolchains()[name]
    source = f"words.{_SUFFIX[toolchain.language]}"
    command = shlex.join(
        word.format(python="python3", source=source, out="words.wasm") for word in toolchain.build
    )
    assert f"\n    {command}\n" in PAGE
    assert all(package in PAGE for package in (*toolchain.debian, *toolchain.python))


def test_the_page_names_every_field_of_a_receipt_and_no_other() -> None:
    rows = re.findall(r"^\| (`[^|]*) \|", PAGE.partition("## Receipts")[2], re.MULTILINE)
    named = {word for row in rows for word in re.findall(r"`(\w+)`", row)}
    assert named == {field.name for field in msgspec.structs.fields(Receipt)}
    assert all(f"`{field.name}`" in PAGE for field in msgspec.structs.fields(Limits))


def test_the_page_names_every_field_inside_of_a_receipt() -> None:
    """Those of its parts, of the statement around it, and of the envelope around that."""
    text = PAGE.partition("## Receipts")[2]
    parts = (JobRef, Content, EngineRef, Limits, Statement, Subject, Digest, *get_args(Status))
    inside = {field.encode_name for part in parts for field in msgspec.structs.fields(part)}
    kinds = {str(part.__struct_config__.tag) for part in get_args(Status)}
    envelope = json.loads(dsse.sign("x", b"{}", [Identity.ephemeral()]))
    around = {*envelope, *envelope["signatures"][0]}
    assert {name for name in inside | kinds | around | {"kind"} if f"`{name}`" not in text} == set()


def test_the_page_has_the_defaults_of_the_limits() -> None:
    limits = Limits()
    assert f"| `--fuel N` | {limits.fuel:,} |" in PAGE
    assert f"| `--wall SECONDS` | {limits.wall_seconds:g} |" in PAGE
    assert f"| `--memory MIB` | {limits.memory_bytes // MIB} |" in PAGE
    assert f"| `--compile MIB` | {limits.compile_bytes // MIB} |" in PAGE
    assert f"| `--max-output BYTES` | {limits.output_bytes // MIB} MiB |" in PAGE
    assert f"| | {limits.stdin_bytes // MIB} MiB | standard input; and input files together |" in PAGE
    assert f"| `--scratch MIB` | {limits.scratch_bytes // MIB} |" in PAGE
    assert f"| | {limits.module_bytes // MIB} MiB | the module |" in PAGE


def session(directory: Path, *tests: str) -> str:
    """Run blocks of the page, with the key of this run's node in place of the page's; what they said."""
    (directory / "fixtures").mkdir()
    shutil.copyfile(pages.PROJECT / "fixtures/hello.wat", directory / "fixtures/hello.wat")
    state = directory / "state"
    key = Identity.load_or_create(state / "identity.json").public_key
    found = [each for test in tests for each in pages.chosen(NAME, test)]
    found = [
        dataclasses.replace(
            each,
            lines=tuple(
                # The key is needed before the page makes it.
                re.sub(r"(?<=--key )\w+|(?<=^\$ key=)\w+", key, line).replace(
                    "made now", "made before, and kept"
                )
                for line in each.lines
            ),
        )
        for each in found
    ]
    return pages.run(found, directory, pages.environment(directory, {"PHASE_STATE": str(state)}))


def test_the_session(tmp_path: Path) -> None:
    said = session(tmp_path, "test_the_session")
    assert f"signed by  {Identity.load(tmp_path / 'state/identity.json').public_key}" in said


def test_a_receipt_by_hand(tmp_path: Path) -> None:
    """With openssl; what it compares decides."""
    said = session(tmp_path, "test_the_session", "test_a_receipt_by_hand")
    hashes = re.findall("[0-9a-f]{64}", said.rpartition("Verified")[2])
    assert len(hashes) == 2
    assert len(set(hashes)) == 1
    signed = tmp_path / "signed"
    signed.write_bytes(signed.read_bytes().replace(b'"code":0', b'"code":1'))
    lines = [line for each in pages.chosen(NAME, "test_a_receipt_by_hand") for line in each.lines]
    (openssl,) = (line.removeprefix("$ ") for line in lines if "openssl" in line)
    done = subprocess.run(["sh", "-c", openssl], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Verification Failure" in done.stdout + done.stderr


def test_a_receipt_by_libsodium(tmp_path: Path) -> None:
    if shutil.which("php") is None:
        pytest.skip("no php here: python3 -m lab doctor says how to get it")
    tests = ("test_the_session", "test_a_receipt_by_hand", "test_a_receipt_by_libsodium")
    assert "bool(true)" in session(tmp_path, *tests)
