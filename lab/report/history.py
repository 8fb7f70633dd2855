"""What earlier runs have left: one line per scenario and run, in a file of bounded size.

It lies beside the results and outlives them: a run deletes the last one's results, never this.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from lab.report.errors import ReportError
from lab.report.records import Record, write

#: Runs that are kept of one row of the matrix.
KEPT = 40


class Row(msgspec.Struct, frozen=True, order=True):
    """What a row of the matrix is about."""

    scenario: str
    arch: str
    firmware: str
    mode: str
    topology: str


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario in one run.

    Attributes:
        commit: what was tested, as git names it; empty when unknown.
        record: without what is drawn once, and large.
    """

    commit: str
    record: Record

    @property
    def row(self) -> Row:
        """Where it belongs."""
        told = self.record
        return Row(told.scenario, told.arch, told.firmware, told.mode, told.topology)


def read(path: Path) -> list[Run]:
    """Reads a history, oldest first; empty when there is none yet.

    Raises:
        ReportError: it is not what `add` wrote.
    """
    if not path.exists():
        return []
    try:
        return msgspec.json.Decoder(Run).decode_lines(path.read_bytes())
    except msgspec.MsgspecError as error:
        raise ReportError(
            f"{path} is not a history: {error}", hint="Move it away and build again."
        ) from error


def add(path: Path, records: Iterable[Record], commit: str) -> tuple[list[Run], bool]:
    """Adds a run's records and drops what is too old.

    The same records again add nothing: a report may be built twice.

    Args:
        path: the file; made when it is not there.
        records: of the last run.
        commit: what was tested.

    Returns:
        The whole history, oldest first, and whether anything in it is new.
    """
    runs = read(path)
    known = {_identity(run.record) for run in runs}
    new = [
        Run(commit=commit, record=msgspec.structs.replace(record, nodes=[], tracks=[]))
        for record in records
        if _identity(record) not in known
    ]
    if not new:
        return runs, False
    kept = bounded(sorted([*runs, *new], key=lambda run: run.record.ended))
    write(path, msgspec.json.Encoder().encode_lines(kept))
    return kept, True


def named(records: Iterable[Record], runs: Sequence[Run]) -> list[Record]:
    """Gives what ended before it could say its topology the row that it had in earlier runs.

    Without that, a row would go on to show its old passes alone.

    Args:
        records: of the last run.
        runs: earlier ones, oldest first.
    """
    rows = {run.record.nodeid: run.row for run in runs if run.record.topology}
    found = []
    for record in records:
        row = rows.get(record.nodeid)
        if row is not None and not record.topology:
            record = msgspec.structs.replace(record, **msgspec.structs.asdict(row))
        found.append(record)
    return found


def bounded(runs: Sequence[Run]) -> list[Run]:
    """The newest runs of every row; the order stays."""
    left: dict[Row, int] = {}
    kept = []
    for run in reversed(runs):
        left[run.row] = left.get(run.row, 0) + 1
        if left[run.row] <= KEPT:
            kept.append(run)
    return kept[::-1]


def _identity(record: Record) -> tuple[str, str, str, float, float]:
    return record.nodeid, record.scenario, record.arch, record.ended, record.duration
