"""`python -m lab`: looks after the machine and the reports. The scenarios themselves are run by pytest.

Standard library only at import, so that the doctor answers on a machine where nothing is installed yet.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "reports" / "out"
HISTORY = ROOT / "reports" / "history"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the words after the program's name; the process's own when None.

    Returns:
        0 when all is well, 1 when something is wrong, 2 for wrong usage.
    """
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        print("lab: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab", description="The lab's own commands.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    doctor = commands.add_parser("doctor", help="what this machine has, lacks, and how to get it")
    doctor.add_argument("--json", action="store_true", help="for scripts")
    doctor.set_defaults(run=_doctor)

    report = commands.add_parser(
        "report",
        help="summary.json, tables, the boot-success matrix and Allure's page from the last results",
    )
    report.add_argument(
        "--out", type=Path, default=OUT, metavar="DIR", help="where results are and reports go"
    )
    report.add_argument(
        "--history",
        type=Path,
        default=HISTORY,
        metavar="DIR",
        help="what earlier runs left; kept across runs",
    )
    report.add_argument("--no-html", action="store_true", help="needs no Node: all but Allure's page")
    report.set_defaults(run=_report)

    clean = commands.add_parser("clean", help="delete what the project made: environments, images, reports")
    clean.add_argument("--results", metavar="ARCH", help="only the last results of one architecture")
    clean.add_argument("--history", action="store_true", help="only the history of earlier runs")
    clean.set_defaults(run=_clean)
    return parser


def _doctor(arguments: argparse.Namespace) -> int:
    from lab.doctor.examine import examine
    from lab.doctor.show import as_json, as_text

    health = examine()
    print(as_json(health) if arguments.json else as_text(health))
    return 0 if health.ready else 1


def _report(arguments: argparse.Namespace) -> int:
    from lab.report.build import build
    from lab.report.errors import ReportError

    try:
        build(arguments.out, html=not arguments.no_html, past=arguments.history)
    except ReportError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


def _clean(arguments: argparse.Namespace) -> int:
    from lab.clean import clean, clean_history, clean_results

    if arguments.results:
        clean_results(OUT, arguments.results)
        return 0
    if arguments.history:
        clean_history(HISTORY)
        return 0
    for path in clean(ROOT):
        print(f"removed {path}")
    return 0
