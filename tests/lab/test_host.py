"""Which accelerator machines get, and how long they are waited for."""

import json
import os
import platform
from pathlib import Path

import pytest

from lab import host
from lab.doctor.accel import Ladder, Rung
from lab.errors import MisuseError
from lab.topology import Lab

SOUND = Ladder("kvm", (Rung("is there", ok=True, detail="/dev/kvm"),), "")
UNPROVEN = Ladder("tcg", (Rung("boots a kernel", ok=False, detail="no kernel here"),), "", final=False)


def test_the_ladder_is_climbed_once(tmp_path: Path) -> None:
    asked: list[Ladder] = []

    def ask() -> Ladder:
        asked.append(SOUND)
        return SOUND

    assert [host.verdict(tmp_path / "kept", ask=ask) for _ in range(3)] == [SOUND] * 3
    assert len(asked) == 1


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"key": ["another boot"], "accel": "kvm"}'])
def test_an_answer_of_another_time_is_none(tmp_path: Path, damage: str) -> None:
    kept = tmp_path / "kept"
    kept.write_text(damage)
    assert host.verdict(kept, ask=lambda: SOUND) == SOUND
    assert json.loads(kept.read_text())["accel"] == "kvm"


@pytest.mark.parametrize(
    ("machine", "qemu"),
    [("arm64", "qemu-system-aarch64"), ("aarch64", "qemu-system-aarch64"), ("x86_64", "qemu-system-x86_64")],
)
def test_another_qemu_is_asked_again_whatever_the_system_calls_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, qemu: str
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(host, "_BOOT_ID", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / qemu).touch(mode=0o755)
    os.utime(tmp_path / qemu, (1, 1))
    assert host.verdict(tmp_path / "kept", ask=lambda: SOUND).accel == "kvm"
    assert host.verdict(tmp_path / "kept", ask=lambda: UNPROVEN).accel == "kvm"
    os.utime(tmp_path / qemu, (2, 2))
    assert host.verdict(tmp_path / "kept", ask=lambda: UNPROVEN).accel == "tcg"


def test_what_could_not_be_tried_is_asked_again(tmp_path: Path) -> None:
    assert host.verdict(tmp_path / "kept", ask=lambda: UNPROVEN).accel == "tcg"
    assert host.verdict(tmp_path / "kept", ask=lambda: SOUND).accel == "kvm"


def test_another_architecture_is_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_ACCEL", "kvm")
    own = host.ARCHES[platform.machine()]
    assert host.accelerator(own) == "kvm"
    assert host.accelerator("arm64" if own == "x86_64" else "x86_64") == "tcg"
    monkeypatch.setenv("LAB_ACCEL", "warp")
    with pytest.raises(MisuseError, match="LAB_ACCEL is 'warp'"):
        host.accelerator(own)


def test_a_machine_in_its_own_time_is_emulated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAB_ACCEL", "kvm")
    kernel = tmp_path / "kernel"
    kernel.touch()
    own = host.ARCHES[platform.machine()]
    with Lab(factor=1) as lab:
        assert lab.vm("one", arch=own, kernel=kernel).spec.accel == "kvm"
        assert lab.vm("two", arch=own, kernel=kernel, seed=1).spec.accel == "tcg"


@pytest.mark.parametrize(
    ("seconds", "load", "factor"),
    [
        (0.045, 0.0, 1.0),
        (0.045, 2.0, 1.0),
        (0.01, 0.0, 1.0),
        (0.09, 0.0, 2.0),
        (0.045, 6.0, 3.0),
        (9, 99, 10),
    ],
)
def test_slow_and_crowded_hosts_wait_longer(seconds: float, load: float, factor: float) -> None:
    assert host.slowness(seconds, load, cores=2) == factor


def test_a_factor_is_measured_unless_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAB_TIMEOUT_FACTOR", raising=False)
    assert 1 <= host.factor() <= 10
    monkeypatch.setenv("LAB_TIMEOUT_FACTOR", "2.5")
    assert host.factor() == 2.5
