"""Makes every form of the report from one directory of results."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from lab.report import allure, history, markdown, matrix, matrix_page, run
from lab.report.records import Record, summary, write
from lab.report.run import read_records
from lab.report.table import show


def build(
    out: Path,
    *,
    html: bool,
    root: Path | None = None,
    past: Path | None = None,
    console: Console | None = None,
) -> None:
    """Writes `summary.json`, the matrix and `report.html` into a directory of results; prints the table.

    The summary and the table come first: they need no Node and must not be lost to its troubles. In a CI
    run that has a summary page (`GITHUB_STEP_SUMMARY`) the matrix is added to it.

    Args:
        out: holds one directory of results per architecture.
        html: whether to build Allure's page as well, where the project has Allure.
        root: the project; where this process stands when None.
        past: the directory of earlier runs, to which this one is added; `out/history` when None.
        console: where the table goes; the terminal when None.

    Raises:
        ReportError: there are no results, or a page could not be made.
    """
    console = console or Console()
    root = root or Path.cwd()
    past = past or out / "history"
    kept = past / "boots.jsonl"
    records = history.named(read_records(out), history.read(kept))
    write(out / "summary.json", summary(records))
    show(records, console)
    _say(console, "summary", out / "summary.json")
    told = facts(records, root)
    runs, new = history.add(kept, records, told.get("commit", ""))
    lines = matrix.lines(runs)
    write(out / "matrix.html", matrix_page.page(lines, records, told).encode())
    text = markdown.summary(lines, records)
    write(out / "matrix.md", text.encode())
    if page := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(page).open("a", encoding="utf-8") as file:
            file.write(text)
    _say(console, "matrix ", out / "matrix.html")
    if not html:
        return
    if not allure.has_allure(root):
        wanted = f"npm install allure@{allure.VERSION}"
        console.print(f"report : none; `{wanted}` in {root} adds Allure's page", soft_wrap=True)
        return
    results = {path.parent.name: path for path in sorted(out.glob("*/allure")) if path.is_dir()}
    if (out / "allure").is_dir():
        results.setdefault(allure.BOTH, out / "allure")
    if not results:
        console.print("report : none; pytest --alluredir=DIR/allure, with DIR that of --lab-out, adds it")
        return
    began = {
        path.parent.name: manifest.began
        for path in out.glob("*/run.json")
        if (manifest := run.read(path.parent))
    }
    made = allure.page(
        root,
        results,
        told,
        history=past / "allure.jsonl",
        append=new,
        began=began,
        lost=[record for record in records if record.lost],
    )
    write(out / "report.html", made.encode())
    _say(console, "report ", out / "report.html")


def _say(console: Console, name: str, path: Path) -> None:
    console.print(f"{name}: {path}", soft_wrap=True, highlight=False)


def facts(records: Sequence[Record], root: Path) -> dict[str, str]:
    """What the page says about the run as a whole.

    Args:
        records: of the run.
        root: the project that was tested.
    """
    told = {"commit": _commit(root)}
    for arch in sorted({record.arch for record in records}):
        mine = [record for record in records if record.arch == arch]
        accels = {_accelerator(record) for record in mine if record.accel}
        told[f"accelerator {arch}"] = ", ".join(sorted(accels))
        told[f"kernel {arch}"] = ", ".join(sorted({record.kernel for record in mine if record.kernel}))
    return {name: value for name, value in told.items() if value}


def _accelerator(record: Record) -> str:
    return f"{record.accel} ({record.refused})" if record.refused else record.accel


def _commit(root: Path) -> str:
    git = shutil.which("git")
    if git is None:
        return ""
    done = subprocess.run(
        [git, "-C", str(root), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()
