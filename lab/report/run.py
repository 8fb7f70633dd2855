"""Which run the results in a directory are of, and which tests it was to run.

Readers of results look here first. A test that it names and that left no record did not pass: its
process was killed, or the run ended before its turn.
"""

import fcntl
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from lab import locks
from lab.errors import InfrastructureError, MisuseError
from lab.report.errors import ReportError
from lab.report.records import Record, write

NAME = "run.json"
#: What a run leaves beside its manifest; the next run begins without it.
_LEFT = ("records", "evidence")


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """A test that a run is to run; fields as in `lab.report.records.Record`."""

    nodeid: str
    scenario: str
    arch: str = ""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the tests.

    Attributes:
        run: its name; all workers of a run have the same.
        began: seconds since 1970.
        expected: every test that it was to run, in the order of collection.
    """

    run: str
    began: float
    expected: list[Expected] = []


def read(directory: Path) -> Manifest | None:
    """The manifest of a directory of results; None when there is none: an earlier version wrote none.

    Raises:
        ReportError: it cannot be read.
    """
    path = directory / NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise ReportError(f"{path} cannot be read: {error}", hint="Delete it and run again.") from error


def missing(manifest: Manifest, records: Sequence[Record]) -> list[Record]:
    """A record for each expected test that left none. None of them passed.

    Args:
        manifest: of a run.
        records: what the run left.
    """
    there = {record.nodeid for record in records}
    return [
        Record(
            scenario=test.scenario,
            arch=test.arch,
            topology="",
            outcome="not run",
            nodeid=test.nodeid,
            ended=manifest.began,
            what="It left no record: the run ended before its turn, or its process was killed.",
            lost=True,
        )
        for test in manifest.expected
        if test.nodeid not in there
    ]


def read_records(out: Path) -> list[Record]:
    """Reads every architecture's records, and names what left none.

    Args:
        out: the directory of results; records lie in `out/*/records` and `out/records`.

    Returns:
        The records, ordered by scenario, topology and architecture.

    Raises:
        ReportError: there are none, or one is not what the plugin writes.
    """
    records = []
    for directory in [out, *sorted(out.glob("*/"))]:
        records += records_in(directory)
    if not records:
        raise ReportError(
            f"There are no results in {out}", hint="Run scenarios first: tox -e lab-x86_64, or make lab."
        )
    return sorted(records, key=lambda record: (record.scenario, record.topology, record.arch))


def records_in(directory: Path) -> list[Record]:
    """The records of one directory of results, and one for each test that left none."""
    there = [_record(path) for path in sorted(directory.glob("records/*.json"))]
    manifest = read(directory)
    return [*there, *(missing(manifest, there) if manifest else ())]


def _record(path: Path) -> Record:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except msgspec.MsgspecError as error:
        raise ReportError(f"{path} is not a record: {error}", hint="Delete it and run again.") from error


class Results:
    """A directory of results that a run writes to. One run at a time has it.

    Args:
        directory: made when it is not there.
        manifest: of the run that wants it. What another run left there is deleted.

    Raises:
        MisuseError: another run that still lives writes to it.
        InfrastructureError: nothing can be written there.
    """

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        self.directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._held = os.open(directory / ".held", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                with locks.exclusive(directory / ".begin", 0o644):
                    self._begin(manifest)
            except BaseException:
                os.close(self._held)
                raise
        except OSError as error:
            raise InfrastructureError(
                f"results cannot be written to {directory}: {error.strerror}; "
                "name another directory with --lab-out"
            ) from error

    def _begin(self, manifest: Manifest) -> None:
        try:
            before = read(self.directory)
        except ReportError:
            before = None
        if before is None or before.run != manifest.run:
            try:
                fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise MisuseError(
                    f"another run writes its results to {self.directory}; "
                    "wait for it, or name another directory with --lab-out"
                ) from None
            for name in _LEFT:
                left = self.directory / name
                if left.exists():
                    shutil.rmtree(left)
            write(self.directory / NAME, msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
        # Each worker of this run holds it as long as it lives.
        fcntl.flock(self._held, fcntl.LOCK_SH)

    def close(self) -> None:
        """Let another run have the directory."""
        os.close(self._held)
