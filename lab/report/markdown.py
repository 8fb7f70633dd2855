"""The matrix as Markdown, for the summary page of a CI run."""

from collections.abc import Sequence
from html import escape

from lab.report.matrix import Line, failures
from lab.report.matrix_page import SHOWN, count, percent, title, trend
from lab.report.records import Record

_SIGNS = {"passed": "✅", "flaky": "⚠️"}


def summary(matrix: Sequence[Line], records: Sequence[Record]) -> str:
    """The text.

    Args:
        matrix: over the history.
        records: of the last run.
    """
    parts = ["## Boot-success matrix", ""]
    for record in failures(records):
        owner = f" ({_cell(record.owner)})" if record.owner else ""
        parts.append(
            f"- **{_cell(record.scenario)}** {record.arch}: {record.outcome}{owner} {_cell(record.what)}"
        )
    parts += [
        "",
        "| scenario | architecture | firmware | mode | success | last runs | median s | p95 s | trend |",
        "|---|---|---|---|---:|---|---:|---:|---:|",
    ]
    parts += [_row(line) for line in matrix]
    timed = [line for line in matrix if line.phases]
    if timed:
        parts += ["", "<details><summary>Phases: median / p95, seconds</summary>", ""]
        for line in timed:
            parts += [f"**{title(line)}**", "", "| phase | median | p95 |", "|---|---:|---:|"]
            parts += [f"| {_cell(name)} | {s.median:.2f} | {s.p95:.2f} |" for name, s in line.phases.items()]
            parts.append("")
        parts.append("</details>")
    return "\n".join(parts) + "\n"


def _row(line: Line) -> str:
    row, whole = line.row, line.whole
    signs = "".join(_SIGNS.get(run.record.outcome, "❌") for run in line.runs[-SHOWN:])
    name = f"{_cell(row.scenario)}<br>{_cell(row.topology)}" if row.topology else _cell(row.scenario)
    cells = [name, row.arch, row.firmware or "-", _cell(row.mode) or "-", f"{percent(line)} {count(line)}"]
    cells += [signs, f"{whole.median:.2f}" if whole else "-", f"{whole.p95:.2f}" if whole else "-"]
    return f"| {' | '.join([*cells, trend(line)])} |"


def _cell(text: str) -> str:
    """Text that came from a machine or a scenario, made harmless in a table."""
    for sign in "\\|*_`[]":
        text = text.replace(sign, f"\\{sign}")
    return escape(" ".join(text.split()), quote=False)
