"""How much memory a release needs, and what is said where there is less."""

import pytest

from phase.boot.memory import (
    MIB,
    Load,
    Memory,
    TooLittleMemoryError,
    check,
    mib,
    needed,
    parse,
    root_words,
    x86_kernel,
)
from tests.phase.boot.conftest import Boot, Publish, Serve

IOMEM = """00000000-00000fff : Reserved
00001000-0009fbff : System RAM
000a0000-000bffff : PCI Bus 0000:00
00100000-0ffdefff : System RAM
  02000000-02e00fff : Kernel code
  03000000-030fffff : System RAM
0ffdf000-0fffffff : Reserved
"""
MEMINFO = """MemTotal:         230000 kB
MemFree:          150000 kB
MemAvailable:     170000 kB
HugePages_Total:       0
"""


def test_the_kernels_own_figures_are_read() -> None:
    found = parse(MEMINFO, IOMEM)
    assert found == Memory(0x9EC00 + 0xFEDF000, 230_000 << 10, 170_000 << 10)
    assert mib(found.installed) == 256
    # Not as root, and on a kernel that says nothing.
    hidden = "00000000-00000000 : System RAM\n"
    assert parse(MEMINFO, hidden).installed == 230_000 << 10
    assert parse("", "") == Memory(0, 0, 0)


@pytest.mark.parametrize("size", [10, 43, 120, 180, 600])
@pytest.mark.parametrize("kernel", [14, 60])
def test_just_enough_is_taken_and_a_megabyte_less_is_refused_with_both_numbers(
    size: int, kernel: int
) -> None:
    load = Load(size * MIB, kernel * MIB, size * MIB)

    def machine(megabytes: int) -> Memory:
        own = 24 * MIB + megabytes * MIB // 64
        return Memory(megabytes * MIB, megabytes * MIB - own, megabytes * MIB - own - 70 * MIB)

    least = next(size for size in range(32, 4096) if needed(load, machine(size)) <= size * MIB)
    check(load, machine(least), "release 1")
    said = rf"release 1 needs ({least}|{least + 1}) MB .* has {least - 1} MB"
    with pytest.raises(TooLittleMemoryError, match=said):
        check(load, machine(least - 1), "release 1")
    # From far below it names a little more, never less.
    for size in range(least // 2, least, 7):
        assert least <= mib(needed(load, machine(size))) <= least * 1.06 + 1


def test_each_moment_that_needs_the_most_decides_for_some_machine() -> None:
    """The kernel keeps half at most; two copies; what this program holds; what the system needs."""
    lean = Memory(1000 * MIB, 990 * MIB, 985 * MIB)
    assert needed(Load(300 * MIB, 200 * MIB, 0), lean) > 1000 * MIB
    assert needed(Load(300 * MIB, 150 * MIB, 0), lean) < 1000 * MIB
    busy = lean._replace(available=700 * MIB)
    assert needed(Load(300 * MIB, 100 * MIB, 300 * MIB), lean) < 1000 * MIB
    assert needed(Load(300 * MIB, 100 * MIB, 300 * MIB), busy) > 1000 * MIB
    # What arrived in an attempt before is not needed once more.
    assert needed(Load(300 * MIB, 100 * MIB, 100 * MIB), busy) < 1000 * MIB
    assert needed(Load(490 * MIB, 1 * MIB, 0), lean) > 1000 * MIB
    tiny = Memory(100 * MIB, 90 * MIB, 90 * MIB)
    assert needed(Load(10 * MIB, 10 * MIB, 10 * MIB), tiny) > 100 * MIB


def test_what_takes_files_only_does_not_hold_the_next_kernel() -> None:
    """64 MB of an arm64 machine: with 256 MB a release of 52 was fetched, and Python killed at the load."""
    load = Load(50 * MIB, 26 * MIB, 50 * MIB)
    plain = Memory(256 * MIB, 227 * MIB, 178 * MIB)
    assert 214 <= mib(needed(load, plain)) <= 218
    split = plain._replace(movable=64 * MIB)
    assert 275 <= mib(needed(load, split)) <= 285
    with pytest.raises(TooLittleMemoryError, match="has 256 MB"):
        check(load, split, "release 1")
    # A large part that takes files takes the file: then only the rest counts.
    check(load, Memory(300 * MIB, 290 * MIB, 240 * MIB, 145 * MIB), "release 1")
    assert parse("MemTotal: 9 kB\nCmaFree: 5 kB\n", "").movable == 5 << 10


def test_an_x86_kernel_is_judged_by_the_one_that_runs() -> None:
    params = bytearray(4096)
    params[0x1F4:0x1F8] = (14 * MIB // 16).to_bytes(4, "little")
    params[0x260:0x264] = (42 * MIB).to_bytes(4, "little")
    assert x86_kernel(bytes(params), 14 * MIB) == 42 * MIB
    assert x86_kernel(bytes(params), 28 * MIB) == 84 * MIB
    assert x86_kernel(bytes(4096), 14 * MIB) == 14 * MIB


def test_little_memory_is_said_before_the_fetch_and_not_tried_again(
    boot: Boot, publish: Publish, serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    publish()
    boot.machine.ram = Memory(64 * MIB, 60 * MIB, 40 * MIB)
    code, asked = boot(serve())
    assert (code, asked.loaded) == (1, [])
    said = capfd.readouterr().err
    assert '"step":"trust","outcome":"ok"' in said
    assert "release 1.0.0 needs" in said
    assert "this machine has 64 MB" in said
    # Nothing was fetched, nothing is tried again, and a restart, which changes nothing, takes its time.
    assert '"step":"fetch","outcome":"ok"' not in said
    assert "trying again" not in said
    assert boot.machine.slept == []
    assert boot.machine.rescue == ("reboot", 600)
    boot.machine.ram = Memory(512 * MIB, 480 * MIB, 400 * MIB)
    assert boot(serve())[0] == 0


def test_an_initrd_that_a_tmpfs_would_not_take_goes_into_one_without_a_limit() -> None:
    """Half of what is left beside it, less what the kernel needs of that."""
    machine = Memory(1024 * MIB, 1000 * MIB, 900 * MIB)
    assert root_words(310 * MIB, machine) == ()
    assert root_words(311 * MIB, machine) == ("rootfstype=ramfs",)
