"""Makes all three forms of the report from one directory of results."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from lab.report import allure
from lab.report.records import Record, read_records, summary, write
from lab.report.table import show

ROOT = Path(__file__).resolve().parents[2]


def build(out: Path, *, html: bool, console: Console | None = None) -> None:
    """Writes `summary.json` and `report.html` into a directory of results and prints the table.

    The summary and the table come first: they need no Node and must not be lost to its troubles.

    Args:
        out: holds one directory of results per architecture.
        html: whether to build the page as well.
        console: where the table goes; the terminal when None.

    Raises:
        ReportError: there are no results, or the page could not be made.
    """
    console = console or Console()
    records = read_records(out)
    write(out / "summary.json", summary(records))
    show(records, console)
    console.print(f"summary: {out / 'summary.json'}", soft_wrap=True, highlight=False)
    if not html:
        return
    results = {path.parent.name: path for path in sorted(out.glob("*/allure")) if path.is_dir()}
    page = allure.page(ROOT, results, facts(records))
    write(out / "report.html", page.encode())
    console.print(f"report:  {out / 'report.html'}", soft_wrap=True, highlight=False)


def facts(records: Sequence[Record]) -> dict[str, str]:
    """What the page says about the run as a whole."""
    told = {"commit": _commit()}
    for arch in sorted({record.arch for record in records}):
        mine = [record for record in records if record.arch == arch]
        told[f"accelerator {arch}"] = ", ".join(sorted({record.accel for record in mine if record.accel}))
        told[f"kernel {arch}"] = ", ".join(sorted({record.kernel for record in mine if record.kernel}))
    return {name: value for name, value in told.items() if value}


def _commit() -> str:
    git = shutil.which("git")
    if git is None:
        return ""
    done = subprocess.run(
        [git, "-C", str(ROOT), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()
