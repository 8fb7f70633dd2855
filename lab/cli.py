"""`python -m lab`: looks after the machine and the reports. The scenarios themselves are run by pytest.

It works on the project that one stands in: the nearest directory above with a file of `_PROJECT`.
Standard library only at import, so that the doctor answers on a machine where nothing is installed yet.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

_OUT = Path("reports", "out")
_HISTORY = Path("reports", "history")
#: What stands at the top of a project, as pytest looks for it, too.
_PROJECT = ("pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg", "setup.py", ".git")
#: Seconds that a scenario may take, as in tox.ini; pyproject.toml's are those of a unit test.
_SCENARIO = 900


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the words after the program's name; the process's own when None.

    Returns:
        0 when all is well, 1 when something is wrong, 2 for wrong usage.
    """
    arguments = _parser().parse_args(argv)
    from lab.errors import LabError

    try:
        return int(arguments.run(arguments))
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted", file=sys.stderr)
        return 130


def project(start: Path | None = None) -> Path:
    """The top of the project that one stands in; where one stands, if nothing says.

    Args:
        start: where one stands; this process's directory when None.
    """
    start = (start or Path.cwd()).absolute()
    for directory in (start, *start.parents):
        if any((directory / name).exists() for name in _PROJECT):
            return directory
    return start


def _parser() -> argparse.ArgumentParser:
    from lab.doctor.needs import choose

    parser = argparse.ArgumentParser(prog="python -m lab", description="The lab's own commands.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    doctor = commands.add_parser("doctor", help="what this machine has, lacks, and how to get it")
    doctor.add_argument("--json", action="store_true", help="for scripts")
    choose(doctor)
    doctor.set_defaults(run=_doctor)

    report = commands.add_parser(
        "report",
        help="summary.json, tables, the boot-success matrix and Allure's page from the last results",
    )
    report.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help=f"where results are and reports go (default: the project's {_OUT})",
    )
    report.add_argument(
        "--history",
        type=Path,
        metavar="DIR",
        help=f"what earlier runs left; kept across runs (default: the project's {_HISTORY})",
    )
    report.add_argument("--no-html", action="store_true", help="all but Allure's page: needs no Node")
    report.set_defaults(run=_report)

    up = commands.add_parser("up", help="run a scenario and keep its machines on until Ctrl-C")
    up.add_argument("scenario", metavar="FILE|NODEID", help="as pytest takes it; of several, the first")
    up.add_argument("options", nargs=argparse.REMAINDER, metavar="...", help="more for pytest")
    up.set_defaults(run=_up)

    console = commands.add_parser("console", help="sit at the console of a machine that is held")
    console.add_argument("machine", nargs="?", help="its name; says which there are when left out")
    console.set_defaults(run=_console)

    graph = commands.add_parser("graph", help="a scenario's machines and segments, from its last run")
    graph.add_argument("scenario", help="its name or pytest's, or a part of that")
    graph.add_argument("--format", choices=("dot", "mermaid"), default="mermaid")
    graph.add_argument("--out", type=Path, metavar="DIR", help="where results are")
    graph.set_defaults(run=_graph)

    clean = commands.add_parser("clean", help="delete what the project made: environments, images, reports")
    clean.add_argument(
        "--results",
        nargs="+",
        metavar="ARCH",
        help="only the last results of these architectures; `both`: of runs of both",
    )
    clean.add_argument("--history", action="store_true", help="only the history of earlier runs")
    clean.set_defaults(run=_clean)
    return parser


def _doctor(arguments: argparse.Namespace) -> int:
    from lab.doctor.examine import examine
    from lab.doctor.show import as_json, as_text

    health = examine(arguments.purpose, arguments.arch or ())
    print(as_json(health) if arguments.json else as_text(health))
    return 0 if health.ready else 1


def _report(arguments: argparse.Namespace) -> int:
    from lab.report.build import build
    from lab.report.errors import ReportError

    try:
        root = project()
        out, past = arguments.out or root / _OUT, arguments.history or root / _HISTORY
        build(out, html=not arguments.no_html, root=root, past=past)
    except ReportError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


def _up(arguments: argparse.Namespace) -> int:
    words = [
        "-m",
        "pytest",
        f"--timeout={_SCENARIO}",
        "--lab-hold-all",
        "--lab-live",
        "--maxfail=1",
    ]
    # It takes this process's place: Ctrl-C reaches pytest alone.
    os.execv(sys.executable, [sys.executable, *words, arguments.scenario, *arguments.options])  # noqa: S606  no shell is wanted


def _console(arguments: argparse.Namespace) -> int:
    from lab.errors import LabError
    from lab.hold import attach, held

    if not arguments.machine:
        print("\n".join(held()) or "no machine is held: pytest --lab-hold keeps the next failure")
        return 0
    try:
        attach(arguments.machine)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


def _graph(arguments: argparse.Namespace) -> int:
    from lab.graph import graph
    from lab.report.errors import ReportError
    from lab.report.run import read_records

    out = arguments.out or project() / _OUT
    try:
        records = read_records(out)
    except ReportError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    wanted = arguments.scenario
    found = [record for record in records if wanted == record.scenario or wanted in record.nodeid]
    if not any(record.nodes for record in found):
        print(f"lab: no run of {wanted!r} in {out} had a machine", file=sys.stderr)
        return 1
    print(graph(next(record.nodes for record in found if record.nodes), arguments.format), end="")
    return 0


def _clean(arguments: argparse.Namespace) -> int:
    from lab.clean import clean, clean_history, clean_results

    if arguments.results:
        for arch in arguments.results:
            clean_results(project() / _OUT, arch)
        return 0
    if arguments.history:
        clean_history(project() / _HISTORY)
        return 0
    for path in clean(project()):
        print(f"removed {path}")
    return 0
