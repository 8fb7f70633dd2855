"""The SDK of PHP, in PHP."""

import json
import sys
from pathlib import Path

from wasmtime import wat2wasm

from phase.identity import Identity
from tests.sdk.node import PROJECT
from tests.sdk.php import SDK, run


def test_php_says_of_every_vector_what_it_says() -> None:
    names = ("receipts", "requests")
    files = [json.loads((PROJECT / f"fixtures/vectors/{name}.json").read_text()) for name in names]
    count = sum(len(each["vectors"]) for each in files)
    assert run("vectors.php") == f"{count} of {count} vectors are judged as they should be\n"


def test_a_job_runs_on_this_machine(tmp_path: Path) -> None:
    for name in ("hello", "exit", "spin"):
        (tmp_path / f"{name}.wasm").write_bytes(wat2wasm((PROJECT / f"fixtures/{name}.wat").read_text()))
    (tmp_path / "tmp").mkdir()
    variables = {
        "PHASE_COMMAND": json.dumps([sys.executable, "-m", "phase"]),
        "PYTHONPATH": str(PROJECT),
        "PHASE_STATE": str(tmp_path / "state"),
        "MODULES": str(tmp_path),
        "TMPDIR": str(tmp_path / "tmp"),
    }
    said = json.loads(run("local.php", variables))
    expected = {"text": "dlroW ,olleH", "code": 0, "args": ["a", "--b"], "env": {"A": "ä", "1": ""}}
    assert said.pop("hello") == expected
    assert said.pop("node") == Identity.load(tmp_path / "state/identity.json").public_key
    assert said.pop("spin") == {"status": {"kind": "limit", "limit": "fuel"}, "fuel": 1_000_000}
    assert "made no receipt" in said.pop("refused")
    assert "made no receipt" in said.pop("nowhere")
    assert said == {
        "exit": {"code": 42},
        "large": 1 << 20,
        "seed": 0,
        "other key": "signature",
        "manifest": True,
        "no limit": "there is no limit disk",
        "zero fuel": "a limit cannot be: $.fuel is out of range",
        "other bytes": "these bytes are another module",
        "left": [],
    }


def test_the_package_is_what_composer_takes() -> None:
    told = json.loads((SDK / "composer.json").read_text())
    assert told["name"] == "phase/sdk"
    assert told["autoload"]["psr-4"] == {"Phase\\Sdk\\": "src/"}
    for command in told.get("scripts", {}).values():
        assert (SDK / command.split()[-1]).exists(), command
    # One class in each file, named as the file: what PSR-4 finds.
    for path in sorted((SDK / "src").glob("*.php")):
        text = path.read_text()
        assert "\nnamespace Phase\\Sdk;\n" in text
        assert any(f"{kind} {path.stem}" in text for kind in ("class", "interface")), path.name
