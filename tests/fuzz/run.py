"""Coverage-guided fuzzing: `tox -e fuzz -- TARGET [libFuzzer options]`, or `tox -e fuzz -- all SECONDS`.

Needs atheris, which is in no extra; `tox -e fuzz` has it.
"""

import importlib
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from lab.doctor.examine import processors

Target = Callable[[bytes], None]

#: Looked into for coverage; the rest of the world would only slow it down.
INSTRUMENTED = ["phase", "tuf.api", "securesystemslib.formats"]
#: Inputs that reached something new, kept between runs.
CORPORA = Path(".cache/fuzz")
#: The longest input (bytes), the most time for one (seconds on the wall), and the most memory (MiB).
LIMITS = ["-max_len=65536", "-timeout=60", "-rss_limit_mb=512"]
#: Processor seconds for one input. On a busy host the wall says little.
SECONDS = 2.0
_EXECUTIONS = re.compile(r"stat::number_of_executed_units: +(\d+)")
_PEAK = re.compile(r"stat::peak_rss_mb: +(\d+)")


class Outcome(NamedTuple):
    """What came of one target.

    Attributes:
        name: of the target.
        executions: inputs tried.
        peak: memory of the process, MiB.
        open: the end of the output where an input broke something, else empty.
    """

    name: str
    executions: int
    peak: int
    open: str


def main() -> None:
    """Fuzz one target until libFuzzer's limit or a finding; or all, for so many seconds in all."""
    words = sys.argv[1:]
    if words[:1] == ["all"]:
        sys.exit(_all(float(words[1]) if len(words) > 1 else 3600.0, words[2:]))
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzz.targets import cases
    found = cases()
    if not words or words[0] not in found:
        sys.exit(
            f"usage: python -m tests.fuzz.run {'|'.join(sorted(found))} [-max_total_time=60 ...]\n"
            "       python -m tests.fuzz.run all [SECONDS [libFuzzer options]]"
        )
    corpus = CORPORA / words[0]
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(found[words[0]].seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    given = [] if any(Path(word).is_file() for word in words[1:]) else [str(corpus)]
    atheris.Setup([sys.argv[0], *LIMITS, *words[1:], *given], timed(found[words[0]].run))
    atheris.Fuzz()


def timed(run: Target) -> Target:
    """The same target, which fails when one input costs it too much of a processor."""

    def watched(data: bytes) -> None:
        began = time.process_time()
        run(data)
        took = time.process_time() - began
        if took > SECONDS:
            raise TimeoutError(f"one input of {len(data)} bytes took {took:.1f} s of a processor")

    return watched


def _all(seconds: float, options: list[str]) -> int:
    """Every target, side by side on all processors; 1 when an input broke one."""
    from tests.fuzz.targets import cases

    names = sorted(cases())
    each = max(int(seconds / len(names)), 1)
    began = time.monotonic()
    with ThreadPoolExecutor(processors()) as pool:
        outcomes = list(pool.map(lambda name: _one(name, each, options), names))
    print(f"{'target':28} {'inputs':>10} {'MiB':>5}")
    for outcome in outcomes:
        word = "OPEN" if outcome.open else ""
        print(f"{outcome.name:28} {outcome.executions:>10} {outcome.peak:>5}  {word}")
    broken = [outcome for outcome in outcomes if outcome.open]
    for outcome in broken:
        print(f"\n{outcome.name}:\n{outcome.open}")
    print(
        f"{len(names) - len(broken)} passed, {len(broken)} failed; "
        f"{each} s each, {time.monotonic() - began:.0f} s in all"
    )
    return bool(broken)


def _one(name: str, seconds: int, options: list[str]) -> Outcome:
    limits = [f"-max_total_time={seconds}", "-print_final_stats=1", *options]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", name, *limits],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    executions, peak = (
        int(found.group(1)) if (found := pattern.search(done.stdout)) else 0
        for pattern in (_EXECUTIONS, _PEAK)
    )
    # Nothing tried is a failure, too: the target did not start.
    failed = done.returncode != 0 or not executions
    print(f"{name}: {executions} inputs, {'OPEN' if failed else 'nothing found'}", flush=True)
    return Outcome(name, executions, peak, done.stdout[-4000:] if failed else "")


if __name__ == "__main__":
    main()
