"""Both SDKs, and a page in a browser, with a real `phase node`."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from wasmtime import wat2wasm

from phase.identity import Identity
from tests.browser import Browser
from tests.sdk import node, php, site
from tests.sdk.node import PROJECT

CLIENT_SEED, STRANGER_SEED = ((bytes([n]) * 32).hex() for n in (21, 22))


class Node(NamedTuple):
    """A node that runs: its key, and the address of its gateway."""

    key: str
    url: str
    modules: Path


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that allows the client of these tests, and modules for it."""
    directory = tmp_path_factory.mktemp("node")
    for name in ("hello", "spin", "exit"):
        (directory / f"{name}.wasm").write_bytes(wat2wasm((PROJECT / f"fixtures/{name}.wat").read_text()))
    client = Identity.from_seed(bytes.fromhex(CLIENT_SEED)).public_key
    words = [
        "node",
        "--state",
        str(directory / "state"),
        "--listen",
        "127.0.0.1:0",
        "--allow",
        client,
        "--json",
    ]
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "phase", *words], stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said, (directory / "log").read_text()
        key, _, places = json.loads(said)["address"].partition("@")
        yield Node(key, f"http://{places.partition(',')[0]}", directory)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(params=["php", "typescript"])
def sdk(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def ask(sdk: str, found: Node, module: str = "hello", **more: Any) -> dict[str, Any]:
    """Has one SDK run a job at the node; what it says."""
    asked = {
        "url": found.url,
        "node": found.key,
        "seed": CLIENT_SEED,
        "module": str(found.modules / f"{module}.wasm"),
        "args": ["a", "ü"],
        "env": {"A": "1"},
        "stdin": "Hello, World",
        "limits": {"fuel": 10_000_000, "wall_seconds": 20},
        "timeout": 60.0,
        "request_timeout": 20.0,
    }
    variables = {"ASKED": json.dumps(asked | more), "no_proxy": "*"}
    if sdk == "php":
        said = php.run("gateway.php", variables)
    else:
        node.install()
        said = node.run(["test/gateway.js"], variables)
    told: dict[str, Any] = json.loads(said)
    return told


def test_a_job_runs_at_the_node(sdk: str, found: Node) -> None:
    expected = {"stdout": "dlroW ,olleH", "stderr": "", "code": 0, "status": {"kind": "exited", "code": 0}}
    assert ask(sdk, found) == expected | {"node": found.key}
    # The module is there by now.
    assert ask(sdk, found) == expected | {"node": found.key}


def test_a_job_that_meets_its_limit_has_a_result(sdk: str, found: Node) -> None:
    said = ask(sdk, found, "spin", limits={"fuel": 1_000_000}, stdin="")
    assert (said["status"], said["code"]) == ({"kind": "limit", "limit": "fuel"}, None)


def test_a_job_that_fails_has_a_result(sdk: str, found: Node) -> None:
    assert ask(sdk, found, "exit", stdin="0000000000000042")["code"] == 42


def test_a_stranger_is_refused_by_name(sdk: str, found: Node) -> None:
    said = ask(sdk, found, seed=STRANGER_SEED)
    assert (said["error"], said["status"]) == ("Gateway", 403)


def test_another_node_is_not_taken_for_the_pinned_one(sdk: str, found: Node) -> None:
    """What is signed names the node, so this one refuses the request."""
    said = ask(sdk, found, node="ab" * 32)
    assert (said["error"], said["status"]) == ("Gateway", 401)


_PAGE = """<!doctype html><title>job</title><script type="module">
import { Client, Gateway, Identity, Job } from '/sdk/typescript/src/index.js';
try {
  const identity = await Identity.fromSeed('SEED');
  const client = new Client(new Gateway({ url: 'URL', node: 'NODE', identity }));
  const module = Uint8Array.from(atob('MODULE'), (character) => character.charCodeAt(0));
  const result = await client.run(await Job.of(module, { stdin: 'Hello, World' }));
  window.found = { text: result.text, code: result.exitCode, node: result.receipt.says.node };
} catch (error) {
  window.found = { error: `${error}` };
}
</script>"""


def test_a_page_in_a_browser_runs_a_job_at_the_node(found: Node) -> None:
    """From another origin, as pages are."""
    node.install()
    module = site.base64((found.modules / "hello.wasm").read_bytes())
    page = _PAGE.replace("SEED", CLIENT_SEED).replace("URL", found.url).replace("NODE", found.key)
    with site.serving(page.replace("MODULE", module)) as address, Browser() as browser:
        browser.open(address)
        browser.wait("window.found")
        said = browser.evaluate("window.found")
    assert said == {"text": "dlroW ,olleH", "code": 0, "node": found.key}
