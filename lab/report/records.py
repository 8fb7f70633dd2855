"""What the pytest plugin leaves of each scenario, and the summary made of that."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from lab.graph import Node
from lab.report.drawing import Track


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario on one topology of one architecture.

    Attributes:
        scenario: its name.
        arch: `x86_64` or `arm64`: that of the machine under test.
        topology: the name of the machines and links it ran on.
        outcome: pytest's word: passed, failed, error, skipped; or flaky: passed when tried again; or not
            run: it was to run and left no record.
        phases: seconds that each phase of the timeline took, in the order they ended.
        accel: the accelerator, such as `tcg` or `kvm`.
        refused: why it was not a faster one: the rung that broke on the host, and what was seen there.
        kernel: release of the kernel that ran in the end; empty when none was reached.
        nodeid: pytest's name of the test.
        duration: seconds of the whole test.
        busy: processors that it and its machines kept busy, on average from its lease to its end: beside
            others, that is less than when it runs alone.
        ended: when, in seconds since 1970.
        firmware: what started the machine: `uefi`, `bios`, or `direct` when QEMU loaded the kernel itself.
        mode: what the boot was allowed, in the project's own words; empty when it has no such thing.
        owner: who has to act on a failure.
        what: what a failure said.
        nodes: its machines and where they are plugged in.
        tracks: what each machine did, for the picture.
        stage: which machines were started from which stage: `server serving`; empty when all of them booted.
        booted: false when there were machines, and not one of them booted by itself.
        tries: what its earlier tries failed with.
        lost: whether it did not end: its process was killed, or its turn never came.
    """

    scenario: str
    arch: str
    topology: str
    outcome: str
    phases: dict[str, float] = {}
    accel: str = ""
    refused: str = ""
    kernel: str = ""
    nodeid: str = ""
    duration: float = 0.0
    busy: float = 0.0
    ended: float = 0.0
    firmware: str = ""
    mode: str = ""
    owner: str = ""
    what: str = ""
    nodes: list[Node] = []
    tracks: list[Track] = []
    stage: str = ""
    booted: bool = True
    tries: list[str] = []
    lost: bool = False


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of `summary.json`; fields as in `Record`."""

    scenario: str
    arch: str
    topology: str
    outcome: str
    phases: dict[str, float]
    accel: str
    kernel: str


def summary(records: Sequence[Record]) -> bytes:
    """The content of `summary.json`."""
    lines = [
        Line(
            scenario=record.scenario,
            arch=record.arch,
            topology=record.topology,
            outcome=record.outcome,
            phases={name: round(seconds, 3) for name, seconds in record.phases.items()},
            accel=record.accel,
            kernel=record.kernel,
        )
        for record in records
    ]
    return msgspec.json.format(msgspec.json.encode(lines), indent=2) + b"\n"


def write(path: Path, content: bytes) -> None:
    """Writes a file so that a reader sees the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
