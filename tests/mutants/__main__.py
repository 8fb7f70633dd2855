"""Build the product with one protection missing each, and see whether its tests notice.

    python -m tests.mutants [-k WORD] [--jobs N] [--out FILE]

The tests of a mutant first pass without it, in the same way and place: otherwise their failing proves
nothing. Then at least one of them fails, as a test does; one that cannot be collected or set up, does not
end, or was failed by the host is no answer. Ends with 1 when a mutant survives.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from lab.doctor.examine import processors
from tests.mutants.catalogue import MUTANTS
from tests.mutants.mutant import Mutant

PROJECT = Path(__file__).resolve().parents[2]
#: Seconds for one path of tests: of a scenario, whose images may have to be built first, and of others,
#: which take a few.
_SCENARIO, _PATIENCE = 1800, 300
#: pytest's exit codes.
_PASSED, _FAILED = 0, 1
_PROVE = "import phase, sys; sys.exit(not phase.__file__.startswith(sys.argv[1]))"


class Verdict(NamedTuple):
    """What came of one mutant."""

    name: str
    file: str
    outcome: str
    by: str
    seconds: float


def copy(into: Path) -> Path:
    """The files of the project that are in git, as they are now."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (PROJECT / name).is_file():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, into / name)
    return into


def patience(killers: Sequence[str]) -> int:
    """Seconds that tests may take in all."""
    paths = [killer for killer in killers if not killer.startswith("--")]
    return sum(_SCENARIO if path.startswith("scenarios/") else _PATIENCE for path in paths)


def test(tree: Path, killers: Sequence[str]) -> tuple[str, str]:
    """Run tests in a tree, with its own `phase`.

    Returns:
        `survived` when all passed, `killed` when one failed as a test does, `broken` when there is no
        answer; and the first test that did not pass.
    """
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    proof = subprocess.run([sys.executable, "-c", _PROVE, str(tree)], cwd=tree, env=environment, check=False)
    if proof.returncode:
        raise SystemExit(f"another phase than the one in {tree} would be tested")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *killers]
    try:
        done = subprocess.run(
            command,
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=patience(killers),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "broken", "did not end"
    summary = [line for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    named = [(kind, name) for kind, _, name in (line.split(" - ")[0].partition(" ") for line in summary)]
    failed = [name for kind, name in named if kind == "FAILED" and name not in _hosts_fault(tree)]
    outcome = "survived" if done.returncode == _PASSED else "broken"
    if done.returncode == _FAILED and failed:
        outcome = "killed"
    return outcome, next((name[:160] for name in [*failed, *(name for _, name in named)]), "")


def _hosts_fault(tree: Path) -> set[str]:
    """Scenarios that the host failed, by the lab's own records: they say nothing of the product."""
    records = [json.loads(path.read_bytes()) for path in tree.glob("reports/out/**/records/*.json")]
    return {record["nodeid"] for record in records if record.get("owner") == "infrastructure"}


def judge(mutant: Mutant) -> Verdict:
    """Remove one thing and run its tests."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as directory:
        tree = copy(Path(directory))
        apply(mutant, tree)
        outcome, by = test(tree, mutant.killers)
    return Verdict(mutant.name, mutant.file, outcome, by, round(time.monotonic() - begun, 1))


def apply(mutant: Mutant, tree: Path) -> None:
    """Change the file.

    Raises:
        ValueError: what should be removed is not there once.
    """
    path = tree / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: {mutant.file} has {text.count(mutant.old)} of {mutant.old!r}")
    path.write_text(text.replace(mutant.old, mutant.new))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("-k", default="", help="only those with this word in their name or file")
    parser.add_argument("--jobs", type=int, default=processors())
    parser.add_argument("--out", type=Path, default=PROJECT / "reports/out/mutants.json")
    arguments = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if arguments.k in mutant.name or arguments.k in mutant.file]
    with tempfile.TemporaryDirectory(prefix="mutant-") as directory:
        every = sorted({killer for mutant in chosen for killer in mutant.killers})
        outcome, by = test(copy(Path(directory)), every)
    if outcome != "survived":
        print(f"without any mutant, {by or 'pytest'} fails already", file=sys.stderr)
        return 2
    verdicts: list[Verdict] = []
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for verdict in pool.map(judge, chosen):
            verdicts.append(verdict)
            print(f"{verdict.outcome:<9} {verdict.name} ({verdict.file}) {verdict.by}", flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps([verdict._asdict() for verdict in verdicts], indent=1) + "\n")
    alive = [verdict.name for verdict in verdicts if verdict.outcome != "killed"]
    print(
        f"{len(verdicts) - len(alive)} of {len(verdicts)} killed"
        + (f"; not: {', '.join(alive)}" if alive else "")
    )
    return 1 if alive or not verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
