"""The table at the end of a run: every scenario's outcome, and what each phase of its boot took."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.report.records import Record

_STYLE = {"passed": "green", "skipped": "yellow", "flaky": "bold yellow"}
#: Columns of one table of phases: this many fit a terminal of 100 characters.
_COLUMNS = 5


def phase_order(records: Iterable[Record]) -> list[str]:
    """All phases in the order in which boots went through them.

    A boot that was refused has only the first few, so the longest timeline gives the order and the others
    are fitted in behind the phase that came before theirs.
    """
    order: list[str] = []
    for record in sorted(records, key=lambda record: -len(record.phases)):
        place = 0
        for name in record.phases:
            if name in order:
                place = order.index(name) + 1
            else:
                order.insert(place, name)
                place += 1
    return order


def show(records: Sequence[Record], console: Console) -> None:
    """Prints the outcomes of all architectures side by side, then each architecture's phases."""
    arches = sorted({record.arch for record in records}, reverse=True)
    console.print(_outcomes(records, arches))
    for arch in arches:
        timed = [record for record in records if record.arch == arch and record.phases]
        for start in range(0, len(timed), _COLUMNS):
            console.print(_phases(arch, timed[start : start + _COLUMNS]))


def _outcomes(records: Sequence[Record], arches: Sequence[str]) -> Table:
    table = Table(title="Scenarios: outcome, seconds, processors kept busy", title_justify="left")
    table.add_column("scenario", overflow="fold")
    table.add_column("topology", overflow="fold")
    for arch in arches:
        table.add_column(arch, justify="right", no_wrap=True)
    rows: dict[tuple[str, str], dict[str, list[Record]]] = {}
    for record in records:
        cells = rows.setdefault((record.scenario, record.topology), {})
        cells.setdefault(record.arch, []).append(record)
    for (scenario, topology), cells in rows.items():
        table.add_row(Text(scenario), Text(topology), *(_outcome(cells.get(arch, ())) for arch in arches))
    return table


def _outcome(records: Sequence[Record]) -> Text:
    parts = [
        Text(
            f"{record.outcome} {record.duration:.1f} s {record.busy:.1f}",
            style=_STYLE.get(record.outcome, "bold red"),
        )
        for record in records
    ]
    return Text("\n").join(parts) if parts else Text("-", style="dim")


def _phases(arch: str, records: Sequence[Record]) -> Table:
    ran_on = sorted({word for record in records for word in (record.accel, record.kernel) if word})
    table = Table(title=f"Phases on {arch}, seconds", title_justify="left", caption=", ".join(ran_on))
    table.add_column("phase")
    for record in records:
        table.add_column(
            Text(f"{record.scenario} {record.topology}".strip()), justify="right", overflow="fold"
        )
    for name in phase_order(records):
        table.add_row(Text(name), *(_seconds(record.phases.get(name)) for record in records))
    table.add_section()
    table.add_row("sum", *(_seconds(sum(record.phases.values())) for record in records))
    return table


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
