"""WASI's official test suite, preview 1, through `phase run`.

    python -m tests.wasi DIRECTORY

DIRECTORY is a checkout of the branch `prod/testsuite-base` of WebAssembly/wasi-testsuite, which holds the
tests as built modules; the suite is not part of this repository. A test that needs a directory is granted a
copy of it (`--dir`). The format of a test's JSON is in the suite's doc/specification.md.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class Case:
    """One test of the suite.

    Args:
        module: its WebAssembly.
        args: arguments.
        env: environment.
        root: directory that it wants as `/`, relative to its own; None: it needs none.
        exit_code: which it must end with.
        stdout: what it must print; None: not checked.
    """

    module: Path
    args: tuple[str, ...]
    env: dict[str, str]
    root: str | None
    exit_code: int
    stdout: str | None


def find(directory: Path) -> list[Case]:
    """The preview-1 tests below a directory, by path."""
    return [_case(module) for module in sorted(directory.rglob("wasm32-wasip1/*.wasm"))]


def _case(module: Path) -> Case:
    beside = module.with_suffix(".json")
    said = json.loads(beside.read_text()) if beside.exists() else {}
    steps = {step["type"]: step for step in said.get("operations", [])}
    begin, end, read = steps.get("run", said), steps.get("wait", said), steps.get("read", {})
    return Case(
        module=module,
        args=tuple(begin.get("args", ())),
        env=dict(begin.get("env", {})),
        root=begin.get("root"),
        exit_code=int(end.get("exit_code", 0)),
        stdout=read.get("payload", said.get("stdout")),
    )


def run(case: Case) -> str:
    """Run a test.

    Returns:
        What is wrong; empty if it passed.
    """
    variables = [word for name, value in case.env.items() for word in ("--env", f"{name}={value}")]
    with tempfile.TemporaryDirectory() as directory:
        if case.root is not None:
            source = case.module.parent / case.root
            shutil.copytree(source, directory, dirs_exist_ok=True, symlinks=True)
            variables += ["--dir", f"{directory}::/"]
        command = [sys.executable, "-m", "phase", "run", *variables, str(case.module), *case.args]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return f"did not end within {TIMEOUT_SECONDS} s"
    if done.returncode != case.exit_code:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return f"exit code {done.returncode}, expected {case.exit_code}: {' / '.join(said[-2:])}"
    if case.stdout is not None and done.stdout != case.stdout.encode():
        return f"stdout {done.stdout[:80]!r}, expected {case.stdout!r}"
    return ""


def main(words: list[str] | None = None) -> int:
    """Run them all and print a table; 1 if one failed or there was none."""
    parser = argparse.ArgumentParser(prog="tests.wasi", description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args(words).directory
    cases = find(directory)
    if not cases:
        print(f"no built preview-1 tests below {directory}; check out the branch prod/testsuite-base")
        return 1
    passed = 0
    for case in cases:
        wrong = run(case)
        passed += not wrong
        name = case.module.relative_to(directory)
        print(f"{'FAILED' if wrong else 'passed'}  {name}{f'  ({wrong})' if wrong else ''}", flush=True)
    granted = sum(case.root is not None for case in cases)
    print(f"{passed} of the {len(cases)} tests pass; {granted} of them are granted a directory")
    return 0 if passed == len(cases) else 1


if __name__ == "__main__":
    sys.exit(main())
