"""`phase run`, whole process, against a bare wasmtime-py script: hello, and programs of real compilers.

    python -m bench.run [ROUNDS]

Prints both medians and their ratio for each. The budget, 1.3, is hello's; the others are only told: the
larger a module, the more of the time is compiling it, and Phase compiles on one core and counts fuel.
Programs whose end is not an exit code are left out: the bare script has no word for it.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

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
    ratios: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as directory:
        for case in _cases(Path(directory)):
            bare, phase = _measure(case, rounds)
            ratios[case.name] = phase / bare
            print(
                f"{case.name}: bare wasmtime-py {bare * 1000:.1f} ms, phase run {phase * 1000:.1f} ms, "
                f"ratio {ratios[case.name]:.2f}",
                flush=True,
            )
    middle = statistics.median(ratios.values())
    print(f"hello {ratios['hello']:.2f} (budget {BUDGET}), median of all {middle:.2f}")
    return 0 if ratios["hello"] <= BUDGET else 1


def _cases(directory: Path) -> list[_Case]:
    hello = directory / "hello.wasm"
    code = "import sys, wasmtime; sys.stdout.buffer.write(wasmtime.wat2wasm(sys.stdin.read()))"
    with HELLO.open() as source, hello.open("wb") as target:
        subprocess.run([sys.executable, "-c", code], stdin=source, stdout=target, check=True)
    cases = [_Case("hello", hello, [], b"Hello, World", 0, corpus.digest(b"dlroW ,olleH"))]
    for run in corpus.runs():
        # Without the environment: the bare script gives none.
        if run.code < 126 and not run.env and run.stdout:
            module = corpus.built(run.module)
            cases.append(_Case(run.name, module, run.args, run.input, run.code, run.stdout))
    return cases


def _measure(case: _Case, rounds: int) -> tuple[float, float]:
    """Median seconds of the bare script and of `phase run`."""
    times: dict[str, list[float]] = {"bare": [], "phase": []}
    # Alternating, so that a busy neighbour costs both the same.
    for number in range(rounds + 2):
        for name, script in (("bare", BARE), ("phase", PHASE)):
            command = [sys.executable, "-c", script, str(case.module), *case.args]
            begun = time.perf_counter()
            done = subprocess.run(command, input=case.given, capture_output=True, check=False)
            took = time.perf_counter() - begun
            assert (done.returncode, corpus.digest(done.stdout)) == (case.code, case.digest), done
            if number >= 2:  # the first ones fill caches
                times[name].append(took)
    return statistics.median(times["bare"]), statistics.median(times["phase"])


if __name__ == "__main__":
    sys.exit(main())
