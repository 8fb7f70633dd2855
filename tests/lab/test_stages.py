import contextlib
import fcntl
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import stages
from lab.errors import LabError, MachineError, MisuseError
from lab.net.dhcp import DhcpFaults
from lab.net.faults import Faults
from lab.qemu.command import Disk
from lab.qemu.vm import VM
from lab.shell import Suspended
from lab.stages import Kept, Stage, made_of, shrink
from lab.topology import Lab

MIB = 1 << 20


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    made = tmp_path / "kernel"
    made.write_bytes(b"a kernel")
    return made


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("PHASE_CACHE", str(tmp_path / "cache"))
    with Lab(factor=1) as made:
        yield made


def ready(vm: VM) -> None:
    raise AssertionError("no machine of these tests gets this far")


def kept(base: Path, name: str, size: int, used: int) -> Path:
    directory = base / name
    directory.mkdir(parents=True)
    (directory / "one.memory").write_bytes(b"x" * size)
    told = directory / "stage.json"
    told.write_text(json.dumps({"seconds": 1, "waits": {"one": ["session", 1]}}))
    os.utime(told, (used, used))
    (base / f"{name}.lock").touch()
    return directory


def test_the_oldest_go_until_the_rest_fits(tmp_path: Path) -> None:
    old, middle, new = (kept(tmp_path, name, MIB, used) for used, name in enumerate("cab", 1))
    assert shrink(tmp_path, 4 * MIB) == []
    assert shrink(tmp_path, 2 * MIB + MIB // 2) == [old]
    assert (old.exists(), middle.exists(), new.exists()) == (False, True, True)


def test_what_somebody_holds_stays(tmp_path: Path) -> None:
    old, new = kept(tmp_path, "old", MIB, 1), kept(tmp_path, "new", MIB, 2)
    with (tmp_path / "old.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        assert shrink(tmp_path, MIB) == [new]
    assert shrink(tmp_path, 0) == [old]


def test_memory_nobody_touched_takes_no_room(tmp_path: Path) -> None:
    sparse = kept(tmp_path, "sparse", 1, 1)
    os.truncate(sparse / "one.memory", 64 * MIB)
    assert shrink(tmp_path, MIB) == []


def test_contents_decide_and_paths_do_not(lab: Lab, kernel: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(kernel.read_bytes())
    lan = lab.segment("lan")
    base = lab.vm("one", arch="x86_64", kernel=kernel, segments=(lan,)).spec
    first = made_of(base)
    assert not [word for word in first if str(tmp_path) in word or str(lab.directory) in word]
    assert made_of(base._replace(kernel=other)) == first
    other.write_bytes(b"another!")
    changed: list[dict[str, Any]] = [
        {"kernel": other},
        {"initrd": other},
        {"append": "quiet"},
        {"memory": 64},
        {"cpus": 2},
        {"seed": 1},
        {"disks": (Disk(other, access="read-only"),)},
        {"cards": (base.cards[0]._replace(mac="52:54:00:00:00:09"),)},
    ]
    found = {tuple(made_of(base._replace(**change))) for change in changed}
    assert len(found | {tuple(first)}) == len(changed) + 1


def test_what_cannot_be_kept_is_refused(lab: Lab, kernel: Path, tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="without a machine"):
        lab.stage("ready", until=ready)
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(MIB))
    writes = lab.vm("writes", arch="x86_64", kernel=kernel, disks=(Disk(disk),))
    with pytest.raises(MisuseError, match="writes to a disk"):
        lab.stage("ready", writes, until=ready)
    plain = lab.vm("plain", arch="x86_64", kernel=kernel)
    with pytest.raises(MisuseError, match="not a name of a stage"):
        lab.stage("../ready", plain, until=ready)
    with pytest.raises(MisuseError, match="has no source"):
        lab.stage("ready", plain, until=print)
    measured = lab.vm("measured", arch="x86_64", kernel=kernel, tpm=True)
    with pytest.raises(MisuseError, match="measured has a TPM"):
        lab.stage("s", measured, until=ready)


def test_a_stage_that_fails_leaves_nothing(lab: Lab, kernel: Path, tmp_path: Path) -> None:
    plain = lab.vm("plain", arch="x86_64", kernel=kernel)
    # QEMU finds that this is not a kernel.
    with pytest.raises(LabError):
        lab.stage("ready", plain, until=lambda vm: vm.wait_off())
    assert not plain.running
    left = [path.name for path in (tmp_path / "cache/stages").iterdir()]
    assert all(name.endswith(".lock") for name in left)


def test_somebody_who_waits_finds_it_made(tmp_path: Path, lab: Lab, kernel: Path) -> None:
    """What is in the cache is taken as it is; nothing starts."""
    plain = lab.vm("plain", arch="x86_64", kernel=kernel)
    with pytest.raises(LabError):
        lab.stage("ready", plain, until=ready)
    (lock,) = (tmp_path / "cache/stages").glob("*.lock")
    kept(lock.parent, lock.stem, 1, 1)
    stage = lab.stage("ready", plain, until=ready)
    assert stage.seconds == 1
    with lock.open() as mine, pytest.raises(BlockingIOError):
        fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert stages.shrink(lock.parent, 0) == []


@pytest.mark.parametrize("fails", ["", "resume", "wake"])
def test_cables_are_as_before_however_a_start_ends(
    lab: Lab, kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    lan = lab.segment("lan")
    plain = lab.vm("plain", arch="x86_64", kernel=kernel, segments=(lan,))
    port = lan.switch.ports["plain"]
    before = port.to_machine, port.from_machine = Faults(loss=0.5), Faults(partition=True)
    waits = {"plain": Suspended("session", 1)}
    stage = Stage(lab, "ready", [plain], Kept(tmp_path, 1, waits, (tmp_path / "lock").open("w")))
    during = []

    def step(name: str) -> None:
        during.append((name, port.partitioned))
        if name == fails:
            raise MachineError("it does not become what it should")

    monkeypatch.setattr(VM, "resume", lambda *_: step("resume"))
    monkeypatch.setattr(VM, "go_on", lambda *_: step("go_on"))
    monkeypatch.setattr(VM, "wake", lambda *_: step("wake"))
    with contextlib.suppress(MachineError):
        stage.start()
    stage._kept.release()
    assert (port.to_machine, port.from_machine) == before
    steps = ["resume", "go_on", "wake"]
    assert during == [(name, True) for name in (steps[: steps.index(fails) + 1] if fails else steps)]


AROUND = """
import os
from textwrap import dedent

LIMIT = {limit}

def helper(vm):
    vm.wait_mark({mark!r})

def other():
    return {other}

def until(vm):
    helper(vm)
    [vm.wait_mark(dedent(str(LIMIT))) for _ in range(2)]
"""


def test_what_the_condition_uses_is_part_of_it(tmp_path: Path) -> None:
    def source(number: int, limit: int = 1, mark: str = "init", other: int = 1) -> str:
        path = tmp_path / f"around_{number}.py"
        path.write_text(AROUND.format(limit=limit, mark=mark, other=other))
        names: dict[str, Any] = {}
        exec(compile(path.read_text(), path, "exec"), names)  # noqa: S102
        return stages._source(names["until"])

    first = source(1)
    assert source(2) == source(3, other=2) == first
    assert len({first, source(4, limit=2), source(5, mark="job")}) == 3
    assert "textwrap" not in first
    assert "def dedent" not in first


def test_what_machines_are_told_is_part_of_a_stage(
    lab: Lab, kernel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine's way out is in its memory: another router, another stage."""
    lan, world = lab.segment("lan"), lab.segment("world")
    plain = lab.vm("plain", arch="x86_64", kernel=kernel, segments=(lan,))
    asked: list[str] = []

    def take(*words: object) -> Kept:
        asked.append(repr(words[3]))
        return Kept(Path(), 0, {}, io.StringIO())

    monkeypatch.setattr(stages, "take", take)
    changes: list[Callable[[], object]] = [
        lambda: None,
        lambda: lab.router("box", lan, world),
        lambda: lan.dhcp.options.update({6: b"\x0a\x4d\0\3"}),
        lambda: setattr(lan.dhcp, "faults", DhcpFaults(lease=60)),
        lambda: setattr(lab.routers["box"].interfaces["lan"], "mtu", 1000),
    ]
    for change in changes:
        change()
        lab.stage("ready", plain, until=ready)
    assert len(set(asked)) == len(changes)
    lab.stage("ready", plain, until=ready)
    assert asked[-1] == asked[-2]


def test_other_inputs_are_another_stage(lab: Lab, kernel: Path, tmp_path: Path) -> None:
    """A condition may read what it was given: a release, a job. Each has a stage of its own."""
    plain = lab.vm("plain", arch="x86_64", kernel=kernel)
    places = tmp_path / "cache/stages"

    def asked(*inputs: object) -> set[str]:
        with pytest.raises(LabError):
            lab.stage("ready", plain, until=ready, inputs=inputs)
        return {path.name for path in places.glob("*.lock")}

    first = asked("1.0")
    assert asked("1.0") == first
    assert len(asked("1.1")) == 2
    assert len(asked("1.1", 5)) == 3
    assert len(asked()) == 4
