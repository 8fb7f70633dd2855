"""The SDK of TypeScript: in Node, in a browser, and as the compiler sees it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from wasmtime import wat2wasm

from tests.browser import Browser
from tests.sdk import node
from tests.sdk.node import PROJECT, SDK
from tests.sdk.site import serving

_PAGE = """<!doctype html><title>vectors</title><script type="importmap">
{"imports": {"@noble/ed25519": "/sdk/typescript/node_modules/@noble/ed25519/index.js"}}
</script><script type="module">
import { native, noble } from '/sdk/typescript/src/crypto.js';
import { wrong } from '/sdk/typescript/test/vectors.js';
const { vectors } = await (await fetch('/fixtures/vectors/receipts.json')).json();
window.found = { wrong: await wrong(vectors), count: vectors.length, native: (await native()) !== null,
                 noble: (await (await noble()).publicKey(new Uint8Array(32))).length };
</script>"""


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    node.install()


def test_its_own_tests_pass_in_node() -> None:
    tests = sorted(path.relative_to(SDK) for path in (SDK / "test").glob("*.test.js"))
    said = node.run(["--test", "--test-reporter=tap", *tests], {"PHASE_COMMAND": _phase()})
    vectors = json.loads((PROJECT / "fixtures/vectors/receipts.json").read_text())["vectors"]
    assert int(re.findall(r"^# pass (\d+)$", said, re.MULTILINE)[0]) > len(vectors)
    assert "# skipped 0" in said


def test_a_browser_says_of_every_vector_what_it_says() -> None:
    with serving(_PAGE) as address, Browser() as browser:
        browser.open(address)
        browser.wait("window.found")
        found = browser.evaluate("window.found")
        assert browser.problems == []
    assert found["wrong"] == []
    assert found["count"] > 150
    assert found["native"]
    assert found["noble"] == 32


def test_the_compiler_finds_nothing_and_the_types_are_those_of_the_code(tmp_path: Path) -> None:
    tsc = SDK / "node_modules/typescript/bin/tsc"
    node.run([tsc, "-p", "."])
    node.run(
        [tsc, "-p", ".", "--noEmit", "false", "--declaration", "--emitDeclarationOnly", "--outDir", tmp_path]
    )
    made = {path.name: path.read_text() for path in tmp_path.glob("*.d.ts")}
    kept = {path.name: path.read_text() for path in (SDK / "types").glob("*.d.ts")}
    kept.pop("statement.d.ts")
    assert kept == made, "run `npm run types` in sdk/typescript"


def test_a_program_in_typescript_can_use_the_package(tmp_path: Path) -> None:
    """What npm would publish, and nothing else, is what it is compiled against."""
    package = tmp_path / "node_modules/@phase/sdk"
    package.parent.mkdir(parents=True)
    told = json.loads((SDK / "package.json").read_text())
    package.mkdir()
    for name in ("package.json", *told["files"]):
        (package / name).symlink_to(SDK / name)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "use.ts").write_text(_PROGRAM)
    words = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2022", "--types", "node"]
    modules = SDK / "node_modules"
    tsc: list[str | Path] = [modules / "typescript/bin/tsc", *words, "--typeRoots", modules / "@types"]
    node.run([*tsc, tmp_path / "use.ts"])


_PROGRAM = """
import { Client, Job, Receipt } from '@phase/sdk';
import { Local } from '@phase/sdk/local';

const job = await Job.of(new Uint8Array(), { args: ['a'], stdin: 'x', limits: { fuel: 5 } });
const result = await new Client(new Local({ command: ['phase'] })).run(job);
if (result.status.kind === 'exited') console.log(result.status.code.toFixed());
const receipt: Receipt = await Receipt.verify(new Uint8Array(), { key: 'k' });
receipt.says.limits.fuel.toFixed();
// @ts-expect-error a receipt's code is there only if the module has exited
result.status.code;
// @ts-expect-error limits are numbers
await Job.of(new Uint8Array(), { limits: { fuel: 'x' } });
// @ts-expect-error a receipt is verified with a key
await Receipt.verify(new Uint8Array(), {});
"""


def _phase() -> str:
    return json.dumps([sys.executable, "-m", "phase"])


def test_a_job_runs_on_this_machine(tmp_path: Path) -> None:
    (tmp_path / "hello.wasm").write_bytes(wat2wasm((PROJECT / "fixtures/hello.wat").read_text()))
    (tmp_path / "exit.wasm").write_bytes(wat2wasm((PROJECT / "fixtures/exit.wat").read_text()))
    (tmp_path / "spin.wasm").write_bytes(wat2wasm((PROJECT / "fixtures/spin.wat").read_text()))
    words = {"PHASE_COMMAND": _phase(), "MODULES": str(tmp_path), "PHASE_STATE": str(tmp_path / "state")}
    said = json.loads(node.run(["test/local.js"], {**words, "PYTHONPATH": str(PROJECT)}))
    assert said["hello"] == {"text": "dlroW ,olleH", "code": 0, "args": ["a", "--b"], "env": {"A": "ä"}}
    assert said["exit"] == {"code": 42}
    assert said["spin"] == {"status": {"kind": "limit", "limit": "fuel"}, "fuel": 1_000_000}
    assert said["seed"] == 0
    assert said["other key"] == "signature"
    assert "made no receipt" in said["refused"]
    own = subprocess.run(
        [sys.executable, "-m", "phase", "init", "--json"],
        env={"PHASE_STATE": str(tmp_path / "state"), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        check=True,
    )
    assert said["node"] == json.loads(own.stdout)["node"]
