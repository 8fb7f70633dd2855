"""The commands a person types, and the node of a booted system."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from phase import node
from phase.cli import init, receipt, run
from phase.cli import node as node_command
from phase.jobs import location
from phase.jobs import receipt as receipts
from phase.jobs.errors import UnsuitableProcessorError

Wasm = Callable[[str], bytes]


@pytest.fixture
def module(tmp_path: Path, wasm: Wasm) -> Callable[[str], str]:
    def write(name: str) -> str:
        path = tmp_path / f"{name}.wasm"
        path.write_bytes(wasm(name))
        return str(path)

    return write


def test_run_passes_output_arguments_and_exit_code_through(module: Callable[[str], str]) -> None:
    done = CliRunner().invoke(run.command, [module("hello")], input="Hello, World")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "dlroW ,olleH", "")
    assert CliRunner().invoke(run.command, [module("exit")], input="42").exit_code == 42
    done = CliRunner().invoke(run.command, ["--env", "A=1", module("world"), "--", "--fuel", "x"])
    assert done.stdout == "module\0--fuel\0x\0"
    assert done.stderr == "A=1\0"


def test_run_says_which_limit_stopped_the_module(module: Callable[[str], str]) -> None:
    done = CliRunner().invoke(run.command, ["--fuel", "1000", module("spin")])
    assert done.exit_code == 152
    assert "stopped at its fuel limit" in done.stderr


def test_a_receipt_from_run_verifies_against_the_key_of_init(
    module: Callable[[str], str], tmp_path: Path
) -> None:
    state, kept = tmp_path / "state", tmp_path / "receipt.json"
    made = json.loads(CliRunner().invoke(init.command, ["--state", str(state), "--json"]).stdout)
    arguments = ["--state", str(state), "--receipt", str(kept), "--job-id", "j", "--nonce", "n"]
    assert CliRunner().invoke(run.command, [*arguments, module("hello")], input="ab").exit_code == 0
    verify = ["verify", str(kept), "--key", made["node"]]
    done = CliRunner().invoke(receipt.command, [*verify, "--job-id", "j", "--nonce", "n", "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["status"] == {"kind": "exited", "code": 0}
    assert "exited with code 0" in CliRunner().invoke(receipt.command, verify).stdout
    done = CliRunner().invoke(receipt.command, [*verify, "--nonce", "replayed"])
    assert done.exit_code == 1
    assert "expected 'replayed', found 'n'" in str(done.exception)
    done = CliRunner().invoke(receipt.command, ["verify", str(kept), "--key", "0" * 64])
    assert done.exit_code == 1
    assert "signed by another key than 0000" in str(done.exception)
    assert "`phase init` prints on the node" in str(done.exception)


def test_a_module_is_asked_for_by_its_hash_as_it_was_printed(
    module: Callable[[str], str], tmp_path: Path
) -> None:
    kept, key = tmp_path / "receipt.json", _run_with_receipt(module("hello"), tmp_path)
    verify = ["verify", str(kept), "--key", key]
    printed = CliRunner().invoke(receipt.command, verify).stdout
    (hashed,) = [line.split()[1] for line in printed.splitlines() if line.startswith("module")]
    assert hashed.startswith("sha256:")
    for asked in (hashed, hashed.removeprefix("sha256:"), hashed.upper()):
        done = CliRunner().invoke(receipt.command, [*verify, "--module-sha256", asked])
        assert done.exit_code == 0, done.output
    done = CliRunner().invoke(receipt.command, [*verify, "--module-sha256", "sha256:abc"])
    assert done.exit_code == 2
    assert "is not a SHA-256: it has 64 hex digits" in done.output


def _run_with_receipt(module: str, directory: Path) -> str:
    """Run a module, with a receipt beside; the node's key."""
    state = ["--state", str(directory / "state")]
    made = json.loads(CliRunner().invoke(init.command, [*state, "--json"]).stdout)
    arguments = [*state, "--receipt", str(directory / "receipt.json")]
    assert CliRunner().invoke(run.command, [*arguments, module], input="ab").exit_code == 0
    return str(made["node"])


def test_init_twice_shows_the_same_node(tmp_path: Path) -> None:
    first, second = (CliRunner().invoke(init.command, ["--state", str(tmp_path)]) for _ in range(2))
    assert first.stdout.splitlines()[0] == second.stdout.splitlines()[0]
    assert first.stdout.endswith("identity.json (made now)\n")
    assert second.stdout.endswith("identity.json (made before, and kept)\n")


def _marks(captured: str) -> list[dict[str, object]]:
    lines = [line.partition("phase-mark ")[2] for line in captured.splitlines() if "phase-mark " in line]
    return [json.loads(line) for line in lines]


def test_the_node_runs_hello_keeps_its_receipt_and_marks_the_job(
    module: Callable[[str], str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    directory, hello = tmp_path / "run" / "receipts", Path(module("hello"))
    passed = node.run_job("hello", state=tmp_path / "state", module=hello, receipts=directory)
    printed = capfd.readouterr().err
    (mark,) = _marks(printed)
    assert passed
    assert f"phase: the hello job has passed; its receipt is {mark['receipt']}\n" in printed
    assert (mark["step"], mark["outcome"], mark["stdout"]) == ("job", "ok", "dlroW ,olleH")
    kept = Path(str(mark["receipt"]))
    assert kept.name == f"{mark['job_id']}.json"
    receipts.verify(
        kept.read_bytes(), key=str(mark["node"]), job_id=str(mark["job_id"]), stdout=b"dlroW ,olleH"
    )
    assert os.listdir(kept.parent) == [kept.name]


@pytest.mark.parametrize(("name", "reason"), [("flood", "output limit"), ("overflow", "stack overflow")])
def test_a_job_that_fails_is_marked_failed_with_the_reason(
    module: Callable[[str], str], tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, reason: str
) -> None:
    assert not node.run_job(
        "hello", state=tmp_path, module=Path(module(name)), receipts=tmp_path, ephemeral=True
    )
    printed = capfd.readouterr().err
    (mark,) = _marks(printed)
    assert mark["outcome"] == "failed"
    assert reason in str(mark["reason"])
    assert f"phase: the hello job has failed: {mark['reason']}\n" in printed


def test_a_job_on_an_old_processor_is_marked_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def old() -> None:
        raise UnsuitableProcessorError("this processor has no SSE4.1")

    monkeypatch.setattr(location, "check_processor", old)
    with pytest.raises(UnsuitableProcessorError):
        node.run_job("hello", state=tmp_path, module=tmp_path / "hello.wasm", receipts=tmp_path)
    printed = capfd.readouterr().err
    (mark,) = _marks(printed)
    assert (mark["outcome"], mark["reason"]) == ("refused", "this processor has no SSE4.1")
    assert "phase: the hello job has failed: this processor has no SSE4.1\n" in printed


def test_a_node_without_its_module_marks_the_job_failed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--state", str(tmp_path), "--job", "hello", "--module", str(tmp_path / "none.wasm")]
    done = CliRunner().invoke(node_command.command, [*arguments, "--receipts", str(tmp_path)])
    assert done.exit_code == 1
    assert "cannot be read" in str(done.exception)
    (mark,) = _marks(capfd.readouterr().err)
    assert (mark["outcome"], mark["job"]) == ("failed", "hello")
