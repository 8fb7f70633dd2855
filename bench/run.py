"""`phase run hello.wasm`, whole process, against a bare wasmtime-py script.

    python -m bench.run [ROUNDS]

Prints both medians and their ratio; the budget is 1.3.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BUDGET = 1.3
HELLO = Path(__file__).parents[1] / "fixtures/hello.wat"
#: What a person would write first: no limits, no worker, no receipt.
BARE = """
import sys
from wasmtime import Engine, Linker, Module, Store, WasiConfig
engine = Engine()
store = Store(engine)
wasi = WasiConfig()
wasi.inherit_stdin()
wasi.inherit_stdout()
store.set_wasi(wasi)
linker = Linker(engine)
linker.define_wasi()
instance = linker.instantiate(store, Module.from_file(engine, sys.argv[1]))
instance.exports(store)["_start"](store)
"""
#: The same command line the `phase` script runs.
PHASE = "from phase.cli.run import command; command(prog_name='phase run')"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.run")
    parser.add_argument("rounds", type=int, nargs="?", default=20)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as directory:
        module = Path(directory) / "hello.wasm"
        code = "import sys, wasmtime; sys.stdout.buffer.write(wasmtime.wat2wasm(sys.stdin.read()))"
        with HELLO.open() as source, module.open("wb") as target:
            subprocess.run([sys.executable, "-c", code], stdin=source, stdout=target, check=True)
        times: dict[str, list[float]] = {"bare": [], "phase": []}
        # Alternating, so that a busy neighbour costs both the same.
        for number in range(rounds + 2):
            for name, script in (("bare", BARE), ("phase", PHASE)):
                command = [sys.executable, "-c", script, str(module)]
                begun = time.perf_counter()
                done = subprocess.run(command, input=b"Hello, World", capture_output=True, check=True)
                took = time.perf_counter() - begun
                assert done.stdout == b"dlroW ,olleH", done
                if number >= 2:  # the first ones fill caches
                    times[name].append(took)
    bare, phase = (statistics.median(times[name]) for name in ("bare", "phase"))
    print(f"bare wasmtime-py {bare * 1000:.1f} ms, phase run {phase * 1000:.1f} ms")
    print(f"ratio {phase / bare:.2f} (budget {BUDGET})")
    return 0 if phase / bare <= BUDGET else 1


if __name__ == "__main__":
    sys.exit(main())
