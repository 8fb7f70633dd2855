import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from lab.console import MAX_LINE, Console
from lab.errors import InfrastructureError, MachineDied, WaitTimeout


class Machine:
    """The other end of a console."""

    def __init__(self, directory: Path, limit: int = 1 << 20) -> None:
        self.end, ours = socket.socketpair()
        self.log = directory / "log"
        self.console = Console("one", ours, self.log, limit=limit)

    def say(self, data: str | bytes) -> None:
        before = self.console.size
        data = data.encode() if isinstance(data, str) else data
        self.end.sendall(data)
        self.console.read_from(before + len(data) - 1, 1, 5)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    made.end.close()
    made.console.close()


def test_lines_come_whole_and_clean(machine: Machine) -> None:
    machine.say("one\r\n\x1b[1;31mtw")
    machine.say("o\x1b[0m\nthr")
    machine.say("ee \xe4".encode("latin-1") + b"\n")
    machine.console.wait_line("three", timeout=5)
    assert [line.text for line in machine.console.lines] == ["one", "two", "three \N{REPLACEMENT CHARACTER}"]
    assert machine.log.read_bytes() == b"one\r\n\x1b[1;31mtwo\x1b[0m\nthree \xe4\n"
    assert [line.arrived for line in machine.console.lines] == sorted(
        line.arrived for line in machine.console.lines
    )


def test_marks_are_kept_apart(machine: Machine) -> None:
    machine.say('[ 1.0] a-mark {"step":"init","outcome":"ok","t":1}\nnothing\n')
    machine.console.wait_line("nothing", timeout=5)
    assert [mark.step for mark in machine.console.marks] == ["init"]


def test_a_line_may_be_there_already_or_come_later(machine: Machine) -> None:
    machine.say("port 80\n")
    assert machine.console.wait_line(r"port (\d+)", timeout=5)[1] == "80"
    with pytest.raises(WaitTimeout):
        machine.console.wait_line("port", timeout=0.05, since=1)
    later = threading.Timer(0.1, machine.end.sendall, [b"port 81\n"])
    later.start()
    assert machine.console.wait_line(r"port (\d+)", timeout=5, since=1)[1] == "81"
    later.join()


def test_a_timeout_carries_the_transcript(machine: Machine) -> None:
    machine.say("what it said\nand an unfinished line")
    with pytest.raises(WaitTimeout, match="one: no line matching 'never' within 0 s") as late:
        machine.console.wait_line("never", timeout=0.05)
    assert "what it said\nand an unfinished line" in str(late.value)


@pytest.mark.parametrize(
    "line",
    [
        "[    2.0] Kernel panic - not syncing: VFS: Unable to mount root fs",
        "[    2.0] Out of memory: Killed process 71 (python3) total-vm:1kB",
        "[    2.0] Oops: 0002 [#1] PREEMPT SMP NOPTI",
        "[    2.0] BUG: unable to handle page fault for address: 00000000",
        "[    2.0] BUG: kernel NULL pointer dereference, address: 0000000000000000",
        "[    2.0] Internal error: Oops: 96000045 [#1] SMP",
        "[    2.0] kernel BUG at mm/slub.c:435!",
        "[    2.0] general protection fault, probably for non-canonical address 0x1",
        "[  242.0] INFO: task sh:1 blocked for more than 120 seconds.",
        "[   22.0] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
        "[   22.0] rcu: INFO: rcu_sched self-detected stall on CPU",
    ],
)
def test_death_ends_a_wait(machine: Machine, line: str) -> None:
    begin, end = line[:30], line[30:]
    machine.say(begin)
    machine.say(f"{end}\nCall trace: so and so\n")
    with pytest.raises(MachineDied) as died:
        machine.console.wait_line("never", timeout=60)
    assert machine.console.death in str(died.value)
    assert machine.console.death.partition(": ")[2] in line
    assert "Call trace: so and so" in died.value.evidence


def test_ordinary_words_are_no_death(machine: Machine) -> None:
    machine.say("panic=-1 oops=panic\nOut of memory handling is on\nBUG reports to: nobody\n")
    machine.console.wait_line("BUG", timeout=5)
    assert machine.console.death == ""


def test_last_words_are_waited_for(machine: Machine) -> None:
    machine.say("Kernel panic - not syncing: why\n")
    trace = threading.Timer(0.2, machine.end.sendall, [b"Call trace: late\n"])
    trace.start()
    with pytest.raises(MachineDied) as died:
        machine.console.wait_line("never", timeout=60)
    trace.join()
    assert "Call trace: late" in died.value.evidence


def test_what_was_said_before_death_is_still_found(machine: Machine) -> None:
    machine.say("ready\nKernel panic - not syncing: why\n")
    machine.console.wait_line("ready", timeout=5)
    with pytest.raises(WaitTimeout):
        machine.console.wait_line("never", timeout=0.05, deadly=False)


def test_a_wanted_death_is_forgotten(machine: Machine) -> None:
    machine.say("Out of memory: Killed process 7 (job)\n")
    assert "Killed process 7" in machine.console.wait_death(timeout=5)
    machine.say("alive\n")
    machine.console.wait_line("alive", timeout=5)
    with pytest.raises(WaitTimeout):
        machine.console.wait_death(timeout=0.05)


def test_after_a_wanted_death_kernels_are_counted_anew(machine: Machine) -> None:
    for _ in range(4):
        machine.say("Linux version 6.1\nKernel panic - not syncing: as wanted\n")
        assert "kernel panic" in machine.console.wait_death(timeout=5)
    for _ in range(4):
        machine.say("Linux version 6.1\n")
    assert "reboot loop" in machine.console.wait_death(timeout=5)


def test_a_closed_console_ends_a_wait(machine: Machine) -> None:
    closing = threading.Timer(0.1, machine.end.close)
    closing.start()
    with pytest.raises(MachineDied, match="switched off while waiting for line matching 'never'"):
        machine.console.wait_line("never", timeout=60)
    closing.join()
    with pytest.raises(MachineDied, match="switched off while waiting to type"):
        machine.console.send("x" * 1_000_000)


def test_it_reads_on_though_nobody_waits(machine: Machine) -> None:
    for _ in range(100):
        machine.end.sendall(b"x" * 9_999 + b"\n")
    machine.end.sendall(b"end\n")
    machine.console.wait_line("end", timeout=10)
    assert len(machine.console.lines) == 101


def test_an_endless_line_is_cut(machine: Machine) -> None:
    machine.say("x" * (MAX_LINE + 10) + "\nnext\n")
    machine.console.wait_line("next", timeout=5)
    assert [len(line.text) for line in machine.console.lines] == [MAX_LINE, 10, 4]


def test_a_flood_is_a_death_and_keeps_no_more(tmp_path: Path) -> None:
    machine = Machine(tmp_path, limit=1000)
    machine.end.sendall(b"x" * 5000)
    machine.end.sendall(b"y")
    with pytest.raises(MachineDied, match="flood"):
        machine.console.wait_line("never", timeout=60)
    # It reads on all the same, or the machine would stand still.
    machine.end.settimeout(5)
    machine.end.sendall(b"z" * 2_000_000)
    assert machine.console.size == machine.log.stat().st_size == 1000
    machine.end.close()
    machine.console.close()


def test_a_dialogue_by_pexpect(machine: Machine) -> None:
    machine.say("old login: ")
    dialogue = machine.console.spawn()
    machine.say("U-Boot\nlogin: ")
    assert dialogue.expect([r"password", r"(\w+)-Boot"]) == 1
    assert isinstance(dialogue.match, re.Match)
    assert dialogue.match.group(1) == "U"
    assert dialogue.expect_exact("login: ") == 0
    dialogue.sendline("root")
    assert machine.end.recv(100) == b"root\n"
    # Whatever one dialogue takes, another still finds.
    assert machine.console.spawn(since=0).expect("old login") == 0


def test_a_dialogue_reads_letters_that_come_in_pieces(machine: Machine) -> None:
    dialogue = machine.console.spawn()
    whole = "grün\n".encode()
    machine.say(whole[:3])
    with pytest.raises(WaitTimeout):
        dialogue.expect("gr.n", timeout=0.05)
    machine.say(whole[3:])
    assert dialogue.expect("grün", timeout=5) == 0


def test_a_dialogue_fails_with_the_labs_errors(machine: Machine) -> None:
    dialogue = machine.console.spawn(timeout=0.05)
    machine.say("something else\n")
    with pytest.raises(WaitTimeout, match="login") as late:
        dialogue.expect("login: ")
    assert "something else" in late.value.evidence
    assert dialogue.expect(["login: ", pexpect.TIMEOUT]) == 1
    machine.say("Kernel panic - not syncing: why\n")
    with pytest.raises(MachineDied, match="not syncing: why"):
        dialogue.expect_exact("login: ", timeout=60)


def test_typing_to_a_machine_that_does_not_read_comes_to_an_end(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("lab.console.SEND_SECONDS", 1)
    deaf = Machine(tmp_path)
    with pytest.raises(InfrastructureError):
        deaf.console.send("x" * 10_000_000)
    deaf.end.close()
    deaf.console.close()


def test_closing_keeps_what_was_said(machine: Machine) -> None:
    machine.end.sendall(b"last words\n")
    time.sleep(0.05)
    machine.end.close()
    machine.console.close()
    assert machine.console.text == "last words\n"


def test_a_death_shows_what_came_after_it(machine: Machine) -> None:
    """However much that is: what names the death and its trace matter more than the very last lines."""
    machine.say(
        "before\n[    2.0] Kernel panic - not syncing: why\n[    2.0] Call Trace:\n" + "register\n" * 90
    )
    with pytest.raises(MachineDied) as died:
        machine.console.wait_line("never", timeout=5)
    shown = died.value.evidence.splitlines()
    assert shown[1:4] == ["before", "[    2.0] Kernel panic - not syncing: why", "[    2.0] Call Trace:"]
    assert len(shown) == 94


def test_a_prompt_is_an_unfinished_line_left_alone(machine: Machine) -> None:
    machine.say("booting\n")
    assert not machine.console.wait_prompt(timeout=0.3)
    machine.say("/ # ")
    begun = time.monotonic()
    assert machine.console.wait_prompt(timeout=5)
    assert time.monotonic() - begun < 0.6


def test_who_says_nothing_may_want_a_line(machine: Machine) -> None:
    machine.say("a shell without a prompt\n")
    assert machine.console.wait_prompt(timeout=5)


def test_a_boot_that_pauses_wants_nothing_yet(machine: Machine) -> None:
    """Typed too early, a serial driver may be deaf for good: a busy host makes pauses of a second."""
    machine.say("booting\n")
    assert not machine.console.wait_prompt(timeout=2)
    machine.console.answered = True
    machine.say("a shell that has answered before\n")
    assert machine.console.wait_prompt(timeout=2)


def test_the_dead_want_nothing(machine: Machine) -> None:
    machine.say("[    2.0] Kernel panic - not syncing: why\n")
    assert not machine.console.wait_prompt(timeout=5)


def test_typing_to_the_dead_says_what_killed_them(machine: Machine) -> None:
    """It is the machine that failed, not the host: no retry makes that good."""
    machine.say("[    2.0] Kernel panic - not syncing: why\n")
    machine.end.close()
    with pytest.raises(MachineDied, match="not syncing: why"):
        machine.console.send("x" * 1_000_000)


def test_a_line_that_somebody_took_away_is_the_hosts_failure(tmp_path: Path) -> None:
    end, ours = socket.socketpair()
    console = Console("one", ours, tmp_path / "log", lost=lambda: "the adapter was pulled out")
    end.close()
    with pytest.raises(InfrastructureError, match="one: the adapter was pulled out"):
        console.wait_line("never", timeout=60)
    console.close()


def test_a_disk_that_is_full_is_the_hosts_failure() -> None:
    end, ours = socket.socketpair()
    console = Console("one", ours, Path("/dev/full"))
    end.sendall(b"a line\n")
    with pytest.raises(InfrastructureError, match="one: the host cannot write /dev/full: No space left"):
        console.wait_line("never", timeout=10)
    assert console.lines[0].text == "a line"
    console.close()
    end.close()


def test_a_death_that_nobody_was_told_is_found(machine: Machine) -> None:
    machine.console.check()
    machine.say("[    2.0] Oops: divide error: 0000 [#1] SMP\nalive\n")
    machine.console.wait_line("alive", timeout=5)
    with pytest.raises(MachineDied, match="kernel oops: divide error"):
        machine.console.check()
    machine.console.check()


@pytest.mark.parametrize("by", ["line", "death", "dialogue", "dialogue's own"])
def test_every_wait_is_as_long_as_the_host_is_slow(machine: Machine, by: str) -> None:
    machine.console.factor = 5
    dialogue = machine.console.spawn(timeout=0.1)
    waits: dict[str, Callable[[], object]] = {
        "line": lambda: machine.console.wait_line("never", timeout=0.1),
        "death": lambda: machine.console.wait_death(timeout=0.1),
        "dialogue": lambda: dialogue.expect("never", timeout=0.1),
        "dialogue's own": lambda: dialogue.expect_exact("never"),
    }
    begun = time.monotonic()
    with pytest.raises(WaitTimeout):
        waits[by]()
    assert 0.5 <= time.monotonic() - begun < 5


def test_silence_is_a_death(machine: Machine) -> None:
    machine.say("here\n")
    with pytest.raises(MachineDied, match=r"one: silence: not a byte for 0 s, waiting for line"):
        machine.console.wait_line("never", timeout=60, quiet=0.2)
    machine.console.factor = 5
    begun = time.monotonic()
    with pytest.raises(MachineDied, match=r"silence: not a byte for 1 s"):
        machine.console.wait_line("never", timeout=60, quiet=0.2)
    assert time.monotonic() - begun >= 1


@pytest.mark.parametrize("first", ["the line", "its owner"])
def test_what_its_owner_gave_up_was_not_taken_away(tmp_path: Path, first: str) -> None:
    end, ours = socket.socketpair()
    console = Console("one", ours, tmp_path / "log", lost=lambda: "the adapter is gone")
    if first == "the line":
        end.close()
        console._reader.join()
    console.close()
    end.close()
    if first == "the line":
        with pytest.raises(InfrastructureError, match="one: the adapter is gone"):
            console.check()
    console.check()
