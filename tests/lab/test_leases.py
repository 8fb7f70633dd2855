"""Leases: never more than there is, whoever dies, and nobody starves."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import leases
from lab.errors import InfrastructureError, MisuseError
from lab.leases import OVERLAP, RESERVE, SETTLED, Held, Host, Idleness, Need, acquire, holders, short

HOST = Host(cpus=2, available=8192)
NEEDS = st.builds(
    Need,
    vcpus=st.sampled_from((0, 0.5, 1, 1.5, 2, 4)),
    memory=st.integers(0, 4096),
    boards=st.lists(st.sampled_from(["pi", "mini"]), unique=True).map(tuple),
)


@pytest.fixture(autouse=True)
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAB_LEASES", str(tmp_path / "pool"))
    return tmp_path / "pool"


def host() -> Host:
    return HOST


@given(st.lists(NEEDS, max_size=12))
def test_what_is_granted_never_exceeds_the_host(needs: list[Need]) -> None:
    held: list[Held] = []
    for number, need in enumerate(needs):
        if not short(need, held, HOST):
            held.append(Held(str(number), need))
    assert sum(min(lease.need.vcpus, HOST.cpus) for lease in held) <= HOST.cpus * OVERLAP
    if any(lease.need.vcpus >= HOST.cpus for lease in held):
        assert sum(bool(lease.need.vcpus) for lease in held) == 1
    assert sum(lease.need.memory for lease in held) <= HOST.available - RESERVE
    boards = [board for lease in held for board in lease.need.boards]
    assert len(boards) == len(set(boards))


@given(NEEDS)
def test_an_idle_host_grants_whatever_it_could_ever_grant(need: Need) -> None:
    assert short(need, [], HOST) == ""


@pytest.mark.parametrize(
    ("need", "why"),
    [
        (Need(vcpus=2), "2 processors are needed, 1 of 2 are free"),
        (Need(vcpus=1.8), "1.8 processors are needed, 1.5 of 2.5 are free"),
        (Need(memory=6200), "6200 MiB are needed, 6144 are free"),
        (Need(boards=("pi",)), "board pi is with one"),
        (Need(vcpus=1, memory=6144, boards=("mini",)), ""),
    ],
)
def test_what_is_short_is_said(need: Need, why: str) -> None:
    assert short(need, [Held("one", Need(memory=1024, boards=("pi",)))], HOST) == why


@pytest.mark.parametrize(
    ("leased", "need", "idle", "granted"),
    [
        (2.5, Need(vcpus=1), 1.1, True),
        (2.5, Need(vcpus=1), 0.9, False),
        (3.5, Need(vcpus=1), 2.0, False),
        (3.5, Need(vcpus=0.5), 2.0, True),
        # The whole host is never had beside others.
        (2.5, Need(vcpus=2), 2.0, False),
        (2.5, Need(vcpus=1, memory=9000), 2.0, False),
    ],
)
def test_more_is_leased_where_the_host_is_seen_to_be_idle(
    leased: float, need: Need, idle: float, granted: bool
) -> None:
    held = [Held(str(number), Need(vcpus=leased / 2, memory=0)) for number in range(2)]
    assert (short(need, held, HOST, idle=idle) == "") is granted
    assert short(need, held, HOST)


def test_nobody_gets_more_beside_one_who_has_the_host_for_itself() -> None:
    assert "for itself" in short(Need(vcpus=0.5), [Held("one", Need(vcpus=2))], HOST, idle=2)


def test_idle_is_what_was_idle_long_enough() -> None:
    watched = Idleness()
    assert watched.processors(100.0, 50.0) == 0
    assert watched.processors(100.0 + SETTLED - 0.1, 60.0) == 0
    assert watched.processors(100.0 + SETTLED, 50.0 + 2 * SETTLED) == 2
    # Busy since: what was before counts no more.
    for second in range(1, 20):
        last = watched.processors(100.0 + SETTLED + second, 50.0 + 2 * SETTLED)
    assert last == 0


def test_an_idle_host_is_leased_to_more_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not to one that comes when another has just begun: that one's machine is not at work yet."""
    monkeypatch.setattr(leases, "SETTLED", 0.5)
    monkeypatch.setattr(Idleness, "processors", lambda *_: 2.0)
    with acquire(Need(vcpus=1.9), who="one", look=host):
        with pytest.raises(InfrastructureError, match="two: no lease"):
            acquire(Need(vcpus=1), who="two", look=host, timeout=0)
        with acquire(Need(vcpus=1), who="two", look=host, timeout=30):
            pass


def test_a_lease_is_held_and_given_back(pool: Path) -> None:
    with acquire(Need(vcpus=2, boards=("pi",)), who="one", look=host) as lease:
        assert lease.need.boards == ("pi",)
        with pytest.raises(InfrastructureError, match=r"two: no lease .* the host for itself") as late:
            acquire(Need(), who="two", look=host, timeout=0)
        assert "one holds" in late.value.evidence
    lease.release()
    with acquire(Need(vcpus=2, boards=("pi",)), who="two", look=host, timeout=0):
        pass
    assert [path.name for path in pool.iterdir()] == ["lock"]


def test_who_waits_is_told_why_and_gets_it_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    lease = acquire(Need(vcpus=2), who="one", look=host)
    timer = threading.Timer(0.3, lease.release)
    timer.start()
    with acquire(Need(), who="two", look=host, timeout=30, on_wait=told.append) as got:
        assert got.waited >= 0.2
    timer.join()
    why = f"one has the host for itself; held by one (pid {os.getpid()})"
    assert told == [why]
    monkeypatch.setattr(leases, "AGAIN", 0.1)
    lease = acquire(Need(vcpus=2), who="one", look=host)
    with pytest.raises(InfrastructureError):
        acquire(Need(), who="two", look=host, timeout=0.5, on_wait=told.append)
    lease.release()
    assert told[1:3] == [why, why]


def test_nobody_starves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large need lets small ones pass for a while, and then no more."""
    one = acquire(Need(vcpus=1), who="one", look=host)
    large: list[leases.Lease] = []
    waiting = threading.Event()
    thread = threading.Thread(
        target=lambda: large.append(
            acquire(Need(vcpus=2), who="large", look=host, on_wait=lambda _: waiting.set())
        )
    )
    thread.start()
    assert waiting.wait(10)
    with acquire(Need(vcpus=1), who="small", look=host, timeout=0):
        pass
    monkeypatch.setattr(leases, "PATIENCE", 0.0)
    with pytest.raises(InfrastructureError, match="large has waited longer"):
        acquire(Need(vcpus=1), who="small", look=host, timeout=0)
    one.release()
    thread.join(10)
    large[0].release()


def test_what_the_dead_held_is_free_again(pool: Path) -> None:
    """SIGKILL: no handler runs, and neither a lease nor a place in the queue stays."""
    code = (
        "import sys, time; from lab.leases import *; from lab.leases import Host\n"
        "lease = acquire(Need(vcpus=2), who='dead', look=lambda: Host(2, 8192)); print('have', flush=True)\n"
        "time.sleep(600)"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=root) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"have\n"
        assert [lease.who for lease in holders(pool)] == ["dead"]
        with pytest.raises(InfrastructureError):
            acquire(Need(), who="two", look=host, timeout=0)
        os.kill(process.pid, signal.SIGKILL)
    with acquire(Need(vcpus=2), who="two", look=host, timeout=5):
        pass
    assert holders(pool) == []


def test_many_processes_never_hold_more_than_there_is(pool: Path, tmp_path: Path) -> None:
    """Each adds itself to a file while it holds its lease: never more than may overlap on two processors.

    What needs both has them for itself.
    """
    code = (
        "import os, random, sys, time; from lab.leases import *; from lab.leases import Host\n"
        "for turn in range(5):\n"
        "    need = Need(vcpus=random.choice((0.5, 1, 2)), memory=0)\n"
        "    with acquire(need, who=str(os.getpid()), look=lambda: Host(2, 8192), timeout=60):\n"
        "        for change in (need.vcpus, -need.vcpus):\n"
        "            fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)\n"
        "            os.write(fd, f'{change:g}\\n'.encode()); os.close(fd); time.sleep(0.02)\n"
    )
    log = tmp_path / "log"
    log.touch()
    root = Path(__file__).parents[2]
    started = [subprocess.Popen([sys.executable, "-c", code, str(log)], cwd=root) for _ in range(4)]
    assert [process.wait(90) for process in started] == [0] * 4
    now = most = 0.0
    lines = log.read_text().split()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line == "2":
            assert (now, following) == (0, "-2")
        now += float(line)
        most = max(most, now)
    assert now == 0
    assert 2 <= most <= 2 * OVERLAP


def test_memory_in_use_is_not_counted_twice(pool: Path) -> None:
    """What a holder's machines have touched is missing from the available already."""
    block = "import sys; x = bytearray(300 << 20); print('have', flush=True); sys.stdin.read()"
    with acquire(Need(memory=1000), who="one", look=host):
        before = holders(pool)[0].unused
        with subprocess.Popen(
            [sys.executable, "-c", block], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            child.stdout.readline()
            after = holders(pool)[0].unused
            child.communicate()
    assert 290 <= before - after <= 340


def test_somebody_elses_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.setenv("LAB_LEASES", str(tmp_path / "link"))
    with pytest.raises(MisuseError, match="not this user's own"):
        acquire(Need(), who="one", look=host)


@pytest.mark.parametrize("wrong", [{"vcpus": -1}, {"memory": -1}, {"boards": ("",)}])
def test_a_need_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(MisuseError):
        Need(**wrong)


def test_the_host_is_measured() -> None:
    here = leases.this_host()
    assert 1 <= here.cpus <= (os.cpu_count() or 1)
    assert here.available > 0


def test_a_need_that_no_wait_can_meet_is_refused_at_once() -> None:
    """Whoever waits for it would keep everybody else from theirs."""
    with pytest.raises(
        MisuseError, match="giant needs 8000 MiB, and 1024 stay free; this host has 8192 in all"
    ):
        acquire(Need(memory=8000), who="giant", look=lambda: Host(2, 8192, 8192))
