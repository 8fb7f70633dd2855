import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lab.errors import InfrastructureError, MisuseError
from lab.qemu.vm import VM
from lab.topology import Lab, sweep


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A short place for labs' directories."""
    # Made now: pytest would put its own below ours, which goes away.
    tmp_path_factory.getbasetemp()
    with tempfile.TemporaryDirectory(prefix="t-") as made:
        monkeypatch.setattr(tempfile, "tempdir", made)
        yield Path(made)


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    made = tmp_path / "kernel"
    made.write_bytes(b"")
    return made


def test_nothing_is_left_of_a_lab(base: Path, kernel: Path) -> None:
    with Lab() as lab:
        lan = lab.segment("lan")
        lab.vm("one", arch="x86_64", kernel=kernel, segments=(lan,))
        assert list(base.iterdir()) == [lab.directory]
    assert list(base.iterdir()) == []


def test_nothing_is_left_when_the_scenario_fails(base: Path) -> None:
    def scenario() -> None:
        with Lab() as lab:
            lab.segment("lan")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scenario()
    assert list(base.iterdir()) == []


def test_what_fails_at_closing_keeps_nothing_else_from_it(
    base: Path, kernel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab()
    lan = lab.segment("lan")
    stopped = []

    def stop(name: str) -> None:
        stopped.append(name)
        raise InfrastructureError(f"{name} does not stop")

    for name in ("one", "two"):
        vm = lab.vm(name, arch="x86_64", kernel=kernel, segments=(lan,))
        monkeypatch.setattr(vm, "stop", lambda name=name: stop(name))
    with pytest.raises(InfrastructureError, match="one does not stop"):
        lab.close()
    assert stopped == ["one", "two"]
    assert list(base.iterdir()) == []


def test_a_dead_owners_directory_is_swept_and_nobody_elses(base: Path) -> None:
    code = "import os; from lab.topology import Lab; Lab(); os.kill(os.getpid(), 9)"
    environment = os.environ | {"TMPDIR": str(base)}
    killed = subprocess.run([sys.executable, "-c", code], env=environment, check=False, timeout=60)
    assert killed.returncode == -9
    (orphan,) = base.iterdir()
    # The same number, another process: one that has it now did not start then.
    again = base / f"lab-{os.getpid()}-1-abcdefgh"
    foreign = [base / name for name in ("lab-notes-of-mine", "lab-1-2", "labs", "lab-x-y-z")]
    for path in (again, *foreign):
        path.mkdir()
    with Lab() as lab:
        assert not orphan.exists()
        assert not again.exists()
        sweep(base)
        assert lab.directory.exists()
    assert sorted(base.iterdir()) == sorted(foreign)


def test_a_place_too_long_for_sockets_is_said(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = base / ("x" * 80)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(InfrastructureError, match="TMPDIR"):
        Lab()
    assert list(deep.iterdir()) == []


@pytest.mark.parametrize("name", ["", "a b", "a/b", "..", "-a", "x" * 25, "a.b"])
def test_a_name_that_is_none(base: Path, kernel: Path, name: str) -> None:
    with Lab() as lab:
        with pytest.raises(MisuseError):
            lab.segment(name)
        with pytest.raises(MisuseError):
            lab.vm(name, arch="x86_64", kernel=kernel)


def test_misuse_is_said_before_anything_starts(base: Path, kernel: Path) -> None:
    with Lab() as lab:
        lan = lab.segment("lan")
        one = lab.vm("one", arch="x86_64", kernel=kernel, segments=(lan,))
        with pytest.raises(MisuseError, match="there is a one already"):
            lab.vm("one", arch="x86_64", kernel=kernel)
        with pytest.raises(MisuseError, match="there is a lan already"):
            lab.segment("lan")
        with pytest.raises(MisuseError, match="there are: x86_64, arm64"):
            lab.vm("two", arch="riscv64", kernel=kernel)
        with pytest.raises(MisuseError, match="there is no /nowhere"):
            lab.vm("two", arch="x86_64", kernel=Path("/nowhere"))
        with pytest.raises(MisuseError, match="on the segment lan already"):
            lab.vm("two", arch="x86_64", kernel=kernel, segments=(lan, lan))
        with pytest.raises(MisuseError, match="one has not been started"):
            one.console  # noqa: B018
        assert one.qmp_status() == "off"
        assert one.marks == []
        assert one.events == []


def test_addresses_are_known_before_they_are_given(base: Path, kernel: Path) -> None:
    with Lab() as lab:
        lan, other = lab.segment("lan"), lab.segment("other")
        one = lab.vm("one", arch="x86_64", kernel=kernel, segments=(lan, other))
        two = lab.vm("two", arch="arm64", kernel=kernel, segments=(lan,))
        assert lab.address(two, lan) == lab.address(two, lan) == IPv4Address("10.77.0.10")
        assert lab.address(one, lan) == IPv4Address("10.77.0.11")
        assert lab.address(one, other) == IPv4Address("10.77.1.10")
        macs = [card.mac for vm in (one, two) for card in vm.spec.cards]
        assert len(set(macs)) == 3


def test_what_a_machine_can_do(base: Path, kernel: Path) -> None:
    with Lab() as lab:
        alone = lab.vm("alone", arch="arm64", kernel=kernel)
        linked = lab.vm("linked", arch="x86_64", kernel=kernel, segments=(lab.segment("lan"),))
        assert "network" not in alone.capabilities
        assert linked.capabilities >= {"power", "console", "network"}
        assert alone.facts["arch"] == "arm64"
        assert alone.spec.append.startswith("console=ttyAMA0,115200")


@pytest.mark.parametrize("value", ["fast", "0", "-1", "nan", "1000"])
def test_a_factor_that_is_none(base: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("LAB_TIMEOUT_FACTOR", value)
    with pytest.raises(MisuseError, match="LAB_TIMEOUT_FACTOR"):
        Lab()
    assert list(base.iterdir()) == []


def test_no_machine_starts_beyond_the_lease(
    base: Path, kernel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clones too: what they do not share yet, they may write."""
    with Lab(memory=1000) as lab:
        one, two = (lab.vm(name, arch="x86_64", kernel=kernel, memory=512) for name in ("one", "two"))
        on = {"one"}
        monkeypatch.setattr(VM, "running", property(lambda vm: vm.name in on))
        monkeypatch.setattr(VM, "_start", lambda vm, *_: on.add(vm.name))
        with pytest.raises(
            MisuseError, match=r"1024 MiB \(one 512, two 512\), its lease 1000; .*memory=1024"
        ):
            two.start()
        with pytest.raises(MisuseError, match="its lease 1000"):
            two.resume("ready", kernel, kernel)
        on.clear()
        two.start()
        assert on == {"two"}
        on.clear()
        assert one.qmp_status() == "off"
