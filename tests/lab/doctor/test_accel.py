"""The ladder names the rung that broke, and never claims KVM without a booted kernel."""

import json
import os
import platform
from pathlib import Path

import pytest

from lab.doctor import examine as examining
from lab.doctor.accel import Rung, climb, judge, read_rungs
from lab.doctor.examine import examine
from lab.doctor.show import as_json, as_text

LINES = b"""{"name": "opens", "ok": true, "detail": "interface version 12"}
{"name": "creates a VM", "ok": true, "detail": ""}
"""
SLOW = b"""{"name": "runs a CPU", "ok": false, "detail": "100000 loops in 110.00 ms"}
"""


def test_the_first_broken_rung_decides() -> None:
    ladder = judge(read_rungs(LINES + SLOW, hung=False))
    assert ladder.accel == "tcg"
    assert [rung.name for rung in ladder.rungs if not rung.ok] == ["runs a CPU"]
    assert "nested" in ladder.remedy


def test_a_hang_is_put_where_it_happened() -> None:
    rungs = read_rungs(LINES, hung=True)
    assert rungs[-1].name == "runs a CPU"
    assert not rungs[-1].ok
    assert "did not come back" in rungs[-1].detail


def test_a_probe_that_dies_silently_is_a_broken_rung() -> None:
    assert [rung.ok for rung in read_rungs(b"", hung=False)] == [False]


def test_every_rung_must_hold() -> None:
    assert (
        judge([Rung("is there", ok=True, detail=""), Rung("boots a kernel", ok=True, detail="")]).accel
        == "kvm"
    )


def test_this_host_without_a_kernel_to_boot_proves_nothing() -> None:
    ladder = climb(kernels=())
    assert ladder.accel == "tcg"
    assert not ladder.rungs[-1].ok


@pytest.mark.parametrize(
    ("machine", "qemu", "offered", "accel"),
    [
        ("arm64", "qemu-system-aarch64", "1", "hvf"),
        ("x86_64", "qemu-system-x86_64", "1", "hvf"),
        ("arm64", "qemu-system-aarch64", "0", "tcg"),
        ("arm64", "", "1", "tcg"),
    ],
)
def test_a_mac_climbs_the_same_ladder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, qemu: str, offered: str, accel: str
) -> None:
    """A stand-in for its programs: HVF is taken when a kernel has booted with it, and not before."""
    programs = {"sysctl": f"echo {offered}"}
    if qemu:
        programs[qemu] = (
            f'echo "$@" >{tmp_path}/asked; for word; do log=$word; done; '
            "echo Kernel panic - not syncing: VFS >${log#file:}"
        )
    for name, does in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    ladder = climb(kernels=[tmp_path / "kernel"])
    assert ladder.accel == accel
    assert ladder.rungs[0].name == "is offered"
    if accel == "hvf":
        assert ladder.rungs[-1].name == "boots a kernel"
        assert "accel=hvf" in (tmp_path / "asked").read_text()


def test_a_host_that_is_no_linux_has_processors_and_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    assert examining.processors() == os.cpu_count()
    assert examining._memory(tmp_path / "no meminfo") > 1 << 28


def test_the_doctor_says_the_same_to_people_and_to_scripts() -> None:
    ladder = judge(read_rungs(LINES + SLOW, hung=False))
    health = examine(accelerator=lambda: ladder)
    told = json.loads(as_json(health))
    assert told["accelerator"]["name"] == "tcg"
    assert told["ready"] is health.ready
    text = as_text(health)
    assert "accelerator: tcg" in text
    assert "runs a CPU" in text
    assert all(tool["name"] in text for tool in told["tools"])
