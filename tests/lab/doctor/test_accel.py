"""The ladder names the rung that broke, and never claims KVM without a booted kernel."""

import json

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
