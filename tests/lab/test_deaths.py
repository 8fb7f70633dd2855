"""What kernels say when they die, as they said it."""

import pytest

from lab.deaths import BIRTHS, Watch

SAID = {
    "init is a program for another architecture, or not a program": [
        "[    1.1] Failed to execute /init (error -8)"
    ],
    "kernel panic": ["[    4.2] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100"],
    "out of memory": ["[  9.1] Out of memory: Killed process 77 (head) total-vm:1072kB, anon-rss:4kB"],
    "kernel oops": [
        "[   7.0] BUG: kernel NULL pointer dereference, address: 0000000000000000",
        "[   7.0] Unable to handle kernel NULL pointer dereference at virtual address 0000000000000000",
        "[   7.0] Oops: 0000 [#1] PREEMPT SMP NOPTI",
        "[   7.0] Internal error: Oops: 96000004 [#1] SMP",
        "[   7.0] invalid opcode: 0000 [#1] PREEMPT SMP NOPTI",
    ],
    "hung task": ["[  12.3] INFO: task sh:120 blocked for more than 2 seconds."],
    "RCU stall": [
        "[  20.0] rcu: INFO: rcu_sched self-detected stall on CPU",
        "[  20.0] rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 0-.... }",
    ],
    "lockup": ["[  26.0] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [insmod:93]"],
}


@pytest.mark.parametrize(("kind", "line"), [(kind, line) for kind, lines in SAID.items() for line in lines])
def test_a_death_has_a_name(kind: str, line: str) -> None:
    assert Watch().line(line).startswith(f"{kind}: ")


@pytest.mark.parametrize(
    "line", ["", "panic=-1", "oom_score_adj", "INFO: task manager started", "rcu: Hierarchical RCU"]
)
def test_most_lines_kill_nobody(line: str) -> None:
    assert Watch().line(line) == ""


@pytest.mark.parametrize("prefix", ["[    0.000000] ", ""])
def test_kernel_after_kernel_is_a_loop(prefix: str) -> None:
    watch = Watch()
    said = [watch.line(f"{prefix}Linux version 6.1.0-56-cloud-amd64 (debian)") for _ in range(BIRTHS)]
    assert said[:-1] == [""] * (BIRTHS - 1)
    assert said[-1].startswith("reboot loop: ")


def test_so_is_the_first_mark_again_and_again() -> None:
    watch = Watch()
    said = [watch.mark(step, t) for _ in range(BIRTHS) for step, t in (("kernel", 1.0), ("init", 2.5))]
    assert [each for each in said if each] == [
        "reboot loop: kernel for the 4th time since it was switched on"
    ]
    # Two kernels are a boot of Phase; what a shell shows of the log is not one.
    assert not Watch().line("12:00 # [    0.000000] Linux version 6.1.0")


def test_a_step_that_is_tried_again_is_no_birth() -> None:
    """The first that a clone does may well be that."""
    watch = Watch()
    assert [watch.mark("discover", 30.0 + number) for number in range(2 * BIRTHS)] == [""] * 2 * BIRTHS
