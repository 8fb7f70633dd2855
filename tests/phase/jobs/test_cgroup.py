"""Control groups of workers. What the kernel does with them is in `scenarios/test_cage.py`."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from phase.jobs.cgroup import Group
from phase.jobs.errors import CageError
from phase.jobs.runner import Job, Worker
from phase.jobs.status import Exited

Wasm = Callable[[str], bytes]
_FILES = ("memory.oom.group", "memory.swap.max", "cgroup.procs", "memory.max", "cgroup.kill")


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in which a new one has the files of a group, as the kernel makes them."""
    make = os.mkdir

    def mkdir(path: str, mode: int = 0o777) -> None:
        make(path, mode)
        for name in _FILES:
            Path(path, name).touch()

    monkeypatch.setattr(os, "mkdir", mkdir)
    return tmp_path


def test_a_worker_is_put_into_a_group_and_the_group_is_bounded(groups: Path) -> None:
    group = Group(str(groups), 4321)
    group.limit(memory_bytes=1 << 20, compile_bytes=2 << 20)
    made = groups / "worker-4321"
    assert (made / "cgroup.procs").read_text() == "4321"
    assert (made / "memory.oom.group").read_text() == "1"
    assert (made / "memory.swap.max").read_text() == "0"
    # And what the engine has before it sees a job.
    assert 64 << 20 <= int((made / "memory.max").read_text()) - (3 << 20) <= 256 << 20


@pytest.mark.parametrize(
    ("events", "starved"),
    [
        ("low 0\nmax 7\noom 1\noom_kill 2\n", True),
        ("oom 1\noom_kill 0\n", False),
        ("", False),
        ("odd", False),
    ],
)
def test_what_the_kernel_ended_for_want_of_memory_is_known(groups: Path, events: str, starved: bool) -> None:
    group = Group(str(groups), 1)
    (groups / "worker-1/memory.events").write_text(events)
    assert group.starved() is starved


def test_what_is_left_in_a_group_is_ended(groups: Path) -> None:
    Group(str(groups), 1).close()
    assert (groups / "worker-1/cgroup.kill").read_text() == "1"


def test_a_directory_without_groups_is_said_and_the_policy_decides(
    wasm: Wasm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHASE_CGROUP", str(tmp_path))
    with Worker() as worker:
        done = worker.run(Job(wasm("hello"), stdin=b"Hello"))
    assert (done.status, done.stdout) == (Exited(0), b"olleH")
    assert done.missing == (f"it could not get a control group in {tmp_path}: No such file or directory",)
    assert "cgroup" not in done.cage
    assert list(tmp_path.iterdir()) == []
    with Worker("whole") as worker, pytest.raises(CageError, match="could not get a control group"):
        worker.run(Job(wasm("hello")))
