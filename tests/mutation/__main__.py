"""Change the product in many small ways, and count the changes that no test notices.

    python -m tests.mutation [AREA…] [--anew] [--all] [--one-in N]

For each area: how many mutants were killed, per file, and those that live. `docs/develop/mutants.md` says
how to read it. Ends with 1 when an area is below its mark, or an entry of `survivors.toml` fits no living
mutant.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from tests.mutation.areas import Area, chosen
from tests.mutation.survivors import Excuse, listed, stale
from tests.mutation.workspace import PROJECT, Workspace

_KILLED = ("killed", "timeout")


class Figure(NamedTuple):
    """What came of the mutants of one file or area.

    Attributes:
        total: all.
        killed: a test failed, or did not end in time.
        slow: those of `killed` that did not end in time.
        unreached: no test comes to the changed function in its own process.
        excused: live, with a reason.
    """

    total: int
    killed: int
    slow: int
    unreached: int
    excused: int

    @property
    def percent(self) -> float:
        """Killed of 100."""
        return 100 * self.killed / self.total if self.total else 100.0


def figure(mutants: Sequence[dict[str, str]], excuses: Sequence[Excuse]) -> Figure:
    """Count mutants by their fate."""
    fates = Counter(mutant["fate"] for mutant in mutants)
    return Figure(
        total=len(mutants),
        killed=sum(fates[fate] for fate in _KILLED),
        slow=fates["timeout"],
        unreached=fates["no tests"],
        excused=sum(excused(mutant, excuses) for mutant in mutants),
    )


def excused(mutant: dict[str, str], excuses: Sequence[Excuse]) -> bool:
    """Whether a mutant lives for a listed reason."""
    return mutant["fate"] not in _KILLED and any(excuse.fits(mutant) for excuse in excuses)


def line(name: str, found: Figure) -> str:
    """One row of the table."""
    return (
        f"{name:<36} {found.percent:5.1f} %  {found.killed:>4} of {found.total:<4}"
        f"  slow {found.slow:<3} unreached {found.unreached:<4} with a reason {found.excused}"
    )


def judge(area: Area, excuses: Sequence[Excuse], options: argparse.Namespace) -> bool:
    """Run one area and print what came of it; whether that is enough."""
    mutants = Workspace(area, one_in=options.one_in).run(anew=options.anew)
    alive = [mutant for mutant in mutants if mutant["fate"] not in _KILLED]
    for mutant in alive:
        if options.all or not excused(mutant, excuses):
            print(f"\n{mutant['fate']}: {mutant['file']} {mutant['function']}")
            print(f"  - {mutant['was']}\n  + {mutant['becomes']}")
    print()
    for file in sorted({mutant["file"] for mutant in mutants}):
        print(line(file, figure([mutant for mutant in mutants if mutant["file"] == file], excuses)))
    whole = figure(mutants, excuses)
    print(line(area.source, whole), flush=True)
    here = [excuse for excuse in excuses if f"{excuse.file}/".startswith(f"{area.source}/")]
    gone = stale(here, alive) if options.one_in == 1 else []
    for excuse in gone:
        print(f"survivors.toml: {excuse.file} {excuse.function}: no such mutant lives: {excuse.was}")
    if whole.percent < area.least:
        print(f"{area.source}: {whole.percent:.1f} % were killed, and {area.least} must be")
    out = PROJECT / "reports/out/mutation" / f"{area.source.replace('/', '-')}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"area": area.source, **whole._asdict(), "alive": alive}, indent=1) + "\n")
    return not gone and whole.percent >= area.least


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("area", nargs="*", help="phase/trust, for one; else all")
    parser.add_argument("--anew", action="store_true", help="forget what earlier runs found")
    parser.add_argument("--all", action="store_true", help="show those with a reason, too")
    parser.add_argument(
        "--one-in", type=int, default=1, metavar="N", help="a sample: of N mutants, make one"
    )
    arguments = parser.parse_args()
    try:
        areas, excuses = chosen(arguments.area), listed()
    except ValueError as error:
        parser.error(str(error))
    enough = [judge(area, excuses, arguments) for area in areas]
    return 0 if all(enough) else 1


if __name__ == "__main__":
    sys.exit(main())
