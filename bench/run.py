"""`phase run`, whole process, against a bare wasmtime-py script and Node's WASI.

    python -m bench.run [ROUNDS]

For each module the medians of a bare script, of `phase run --no-cache`, of `phase run` with the module kept
compiled, and of Node, where there is one; and the ratios of the first three. The budget, 1.3, is that of
hello without a cache. The others are only told: the larger a module, the more of the time is compiling it,
and Phase compiles on one core and counts fuel. Programs whose end is not an exit code are left out: the bare
script has no word for it.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from bench._modules import large
from fixtures.modules import corpus

BUDGET = 1.3
HELLO = Path(__file__).parents[1] / "fixtures/hello.wat"
#: What a person would write first: no limits, no worker, no receipt.
BARE = """
import sys
from wasmtime import Engine, ExitTrap, Linker, Module, Store, WasiConfig
engine = Engine()
store = Store(engine)
wasi = WasiConfig()
wasi.argv = ["module", *sys.argv[2:]]
wasi.inherit_stdin()
wasi.inherit_stdout()
store.set_wasi(wasi)
linker = Linker(engine)
linker.define_wasi()
instance = linker.instantiate(store, Module.from_file(engine, sys.argv[1]))
try:
    instance.exports(store)["_start"](store)
except ExitTrap as end:
    sys.exit(end.code)
"""
#: The same for Node.
NODE = """
const { WASI } = require("node:wasi");
const [file, ...args] = process.argv.slice(1);
const wasi = new WASI({ version: "preview1", args: ["module", ...args], returnOnExit: true });
const module = new WebAssembly.Module(require("node:fs").readFileSync(file));
process.exitCode = wasi.start(new WebAssembly.Instance(module, wasi.getImportObject()));
"""
#: The same command line the `phase` script runs.
PHASE = "from phase.cli.run import command; command(prog_name='phase run')"


class _Case(NamedTuple):
    name: str
    module: Path
    args: list[str]
    given: bytes
    code: int
    digest: str


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.run")
    parser.add_argument("rounds", type=int, nargs="?", default=20)
    rounds = parser.parse_args().rounds
    cold: dict[str, float] = {}
    kept: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as directory:
        environment = os.environ | {"XDG_CACHE_HOME": directory}
        for case in _cases(Path(directory)):
            took = _measure(case, rounds, environment)
            cold[case.name], kept[case.name] = (took[each] / took["bare"] for each in ("phase", "kept"))
            node = f", Node {took['node'] * 1000:.1f} ms" if "node" in took else ""
            print(
                f"{case.name} ({case.module.stat().st_size} bytes): bare wasmtime-py "
                f"{took['bare'] * 1000:.1f} ms, phase run {took['phase'] * 1000:.1f} ms "
                f"({cold[case.name]:.2f}), kept compiled {took['kept'] * 1000:.1f} ms "
                f"({kept[case.name]:.2f}){node}",
                flush=True,
            )
    middle = [statistics.median(ratios.values()) for ratios in (cold, kept)]
    print(
        f"hello {cold['hello']:.2f} (budget {BUDGET}), kept compiled {kept['hello']:.2f}; "
        f"medians of all {middle[0]:.2f} and {middle[1]:.2f}"
    )
    return 0 if cold["hello"] <= BUDGET else 1


def _cases(directory: Path) -> list[_Case]:
    hello, five, two = (directory / f"{name}.wasm" for name in ("hello", "five", "two"))
    code = "import sys, wasmtime; sys.stdout.buffer.write(wasmtime.wat2wasm(sys.stdin.read()))"
    with HELLO.open() as source, hello.open("wb") as target:
        subprocess.run([sys.executable, "-c", code], stdin=source, stdout=target, check=True)
    five.write_bytes(large(5_000))
    two.write_bytes(large(2_000_000))
    cases = [_Case("hello", hello, [], b"Hello, World", 0, corpus.digest(b"dlroW ,olleH"))]
    for run in corpus.runs():
        # Without the environment: the bare script gives none.
        if run.code < 126 and not run.env and run.stdout:
            module = corpus.built(run.module)
            cases.append(_Case(run.name, module, run.args, run.input, run.code, run.stdout))
    made = [
        _Case(name, file, [], b"", 0, corpus.digest(b"")) for name, file in (("5 kB", five), ("2 MB", two))
    ]
    return [*cases, *made]


def _measure(case: _Case, rounds: int, environment: dict[str, str]) -> dict[str, float]:
    """Median seconds of each way to run it."""
    python = [sys.executable, "-c"]
    commands = {
        "bare": [*python, BARE],
        "phase": [*python, PHASE, "--no-cache"],
        "kept": [*python, PHASE],
    }
    if node := shutil.which("node"):
        commands["node"] = [node, "--no-warnings", "-e", NODE]
    times: dict[str, list[float]] = {name: [] for name in commands}
    # Alternating, so that a busy neighbour costs all the same.
    for number in range(rounds + 2):
        for name, command in commands.items():
            begun = time.perf_counter()
            done = subprocess.run(
                [*command, str(case.module), *case.args],
                input=case.given, capture_output=True, env=environment, check=False,
            )  # fmt: skip
            took = time.perf_counter() - begun
            assert (done.returncode, corpus.digest(done.stdout)) == (case.code, case.digest), done
            if number >= 2:  # the first ones fill caches
                times[name].append(took)
    return {name: statistics.median(found) for name, found in times.items()}


if __name__ == "__main__":
    sys.exit(main())
