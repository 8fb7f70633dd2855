"""The machine under a kernel, with its files in a directory."""

import fcntl
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from phase.boot import arm64, cache, kexec, x86
from phase.boot.errors import BootError
from phase.boot.kexec import Image
from phase.boot.linux import Linux
from phase.boot.machine import Address, Kernel
from phase.boot.memory import Memory
from tests.phase.boot import test_segments


@pytest.fixture
def machine(tmp_path: Path) -> Linux:
    for name in ("proc", "etc", "run"):
        (tmp_path / name).mkdir()
    return Linux(proc=str(tmp_path / "proc"), etc=str(tmp_path / "etc"), run=str(tmp_path / "run"))


def test_a_command_line_of_any_bytes_is_read(machine: Linux, tmp_path: Path) -> None:
    (tmp_path / "proc/cmdline").write_bytes(b"quiet phase.job=caf\xe9 \xff\n")
    assert machine.command_line() == "quiet phase.job=caf\ufffd \ufffd"


def test_what_cannot_be_read_is_an_error_that_names_it(machine: Linux, tmp_path: Path) -> None:
    with pytest.raises(BootError, match="proc/cmdline cannot be read: No such file"):
        machine.command_line()
    (tmp_path / "etc/root.json").mkdir()
    with pytest.raises(BootError, match=r"etc/root\.json cannot be read: Is a directory"):
        machine.config("root.json")
    assert machine.config("floor.json") is None


def test_nothing_that_was_there_before_is_part_of_the_initrd(machine: Linux, tmp_path: Path) -> None:
    (tmp_path / "run/initrd").write_bytes(b"\xa5" * 8192)
    file = machine.open_initrd()
    assert os.fstat(file).st_size == 0
    os.write(file, b"kept")
    assert machine.open_initrd() == file
    assert os.fstat(file).st_size == 4
    os.close(file)


def test_two_programs_of_a_machine_do_not_use_its_cache_at_once(
    machine: Linux, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One would take away what the other has mounted. The second waits for the first."""
    monkeypatch.setattr(cache, "find", lambda: "/dev/disk")
    monkeypatch.setattr(cache, "mount", lambda *words, writable: cache.Cache(tmp_path, "ours"))
    monkeypatch.setattr(cache, "unmount", lambda directory: None)

    def free() -> bool:
        with (tmp_path / "run/cache.lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    assert machine.open_cache("ours", writable=True) is not None
    assert not free()
    machine.close_cache()
    assert free()
    assert machine.open_cache("ours", writable=True) is not None
    machine.close_cache()


_UPDATES = """
import os, sys
from phase.boot import kexec
from phase.boot.linux import Linux
machine = Linux(run=sys.argv[1])
file = machine.open_initrd()
os.write(file, b"verified")
# As for a kernel that is locked down.
with kexec._read_only(file):
    pass
print("held", flush=True)
sys.stdin.read()
"""


def test_two_updates_do_not_write_one_initrd(machine: Linux, tmp_path: Path) -> None:
    """One would start what the other has just emptied."""
    words = [sys.executable, "-c", _UPDATES, str(tmp_path / "run")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as another:
        assert another.stdin is not None
        assert another.stdout is not None
        assert another.stdout.readline() == b"held\n"
        with pytest.raises(BootError, match="another update of this machine is at work"):
            machine.open_initrd()
        assert (tmp_path / "run/initrd").read_bytes() == b"verified"
        another.stdin.close()
    os.close(machine.open_initrd())


def test_the_initrd_is_not_written_through_a_link(machine: Linux, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"mine")
    (tmp_path / "run/initrd").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        machine.open_initrd()
    assert (tmp_path / "elsewhere").read_bytes() == b"mine"


def test_the_keeper_is_told_what_to_do_and_when(machine: Linux, tmp_path: Path) -> None:
    machine.set_rescue("poweroff", 10)
    assert (tmp_path / "run/rescue").read_text() == "poweroff 10\n"


def test_the_kernels_own_figures_are_read(machine: Linux, tmp_path: Path) -> None:
    (tmp_path / "proc/meminfo").write_text("MemTotal: 1000 kB\nMemAvailable: 600 kB\n")
    (tmp_path / "proc/iomem").write_text("00000000-001fffff : System RAM\n")
    assert machine.memory() == Memory(2 << 20, 1000 << 10, 600 << 10)


KERNELS = {"x86_64": test_segments._x86_kernel, "arm64": test_segments._arm64_kernel}


@pytest.mark.parametrize("name", ["x86_64", "arm64"])
@pytest.mark.parametrize("firmware", [True, False])
def test_a_kernel_is_laid_out_by_what_the_running_one_says_of_the_machine(
    machine: Linux, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, firmware: bool
) -> None:
    given: list[tuple[Image, int, kexec.Files]] = []
    monkeypatch.setattr(kexec, "load", lambda image, file, files: given.append((image, file, files)))
    machine.arch = name
    params = bytearray(4096)
    params[0x1E8] = 1
    struct.pack_into("<QQI", params, 0x2D0, 1 << 20, 255 << 20, 1)
    (tmp_path / "params").write_bytes(params)
    (tmp_path / "cpus").write_text("flags : fpu sme\n")
    (tmp_path / "tree").write_bytes(test_segments._tree())
    (tmp_path / "iomem").write_text(test_segments.IOMEM)
    if firmware:
        (tmp_path / "systab").write_text("ACPI20=0x7ff0\n")
    for module, where, source in (
        (x86, "PARAMS", "params"),
        (x86, "CPUS", "cpus"),
        (x86, "SYSTAB", "systab"),
        (arm64, "TREE", "tree"),
        (arm64, "MAP", "iomem"),
    ):
        monkeypatch.setattr(module, where, str(tmp_path / source))
    kernel = KERNELS[name]()
    monkeypatch.setattr(os, "urandom", lambda size: bytes(range(size)))
    machine.load(Kernel(77, kernel[:4096], (8192, len(kernel)), 5 << 20, "quiet"))
    ((image, file, files),) = given
    assert (file, files) == (77, kexec.Files((8192, len(kernel)), "quiet"))
    if name == "x86_64":
        assert image == x86.image(
            kernel[:4096], (8192, len(kernel)), 5 << 20, "quiet",
            params=bytes(params), rsdp=0x7FF0 if firmware else 0, plain=False,
        )  # fmt: skip
    else:
        assert image == arm64.image(
            kernel[:4096], (8192, len(kernel)), 5 << 20, "quiet",
            tree=test_segments._tree(), iomem=test_segments.IOMEM, chance=bytes(range(72)),
        )  # fmt: skip


def test_what_a_kernel_takes_is_more_where_memory_is_encrypted(
    machine: Linux, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for where in ("PARAMS", "CPUS"):
        monkeypatch.setattr(x86, where, str(tmp_path / where))
    running = bytearray(4096)
    struct.pack_into("<I", running, 0x1F4, (1 << 20) // 16)
    struct.pack_into("<I", running, 0x260, 4 << 20)
    (tmp_path / "PARAMS").write_bytes(running)
    (tmp_path / "CPUS").write_text("flags : fpu sse2\n")
    machine.arch = "x86_64"
    assert machine.kernel_memory(2 << 20) == 2 << 20
    (tmp_path / "CPUS").write_text("flags : fpu sev\n")
    assert machine.kernel_memory(2 << 20) == 8 << 20
    machine.arch = "arm64"
    assert machine.kernel_memory(2 << 20) == 2 << 20


def test_its_clocks_go_on_while_it_sleeps(machine: Linux) -> None:
    before = (machine.monotonic(), machine.clock())
    machine.sleep(0.05)
    assert machine.monotonic() >= before[0] + 0.05
    assert machine.clock() > before[1]


def test_without_a_disk_for_it_there_is_no_cache(machine: Linux, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "find", lambda: None)
    assert machine.open_cache("ours", writable=True) is None


def test_its_cards_are_those_that_the_script_in_its_own_directory_knows(
    machine: Linux, tmp_path: Path
) -> None:
    (tmp_path / "run/cards/eth0").mkdir(parents=True)
    (tmp_path / "run/cards/eth0/waits").write_text("no cable\n")
    assert machine.network_waits() == "eth0: no cable"
    assert machine.address() is None
    (tmp_path / "run/cards/eth0/lease").write_text("10.0.0.2\n")
    assert machine.address() == Address("eth0", "10.0.0.2")
    (tmp_path / "run/cards/eth0/lease").unlink()
    (tmp_path / "run/cards/eth0/link-local").write_text("169.254.1.2\n")
    (tmp_path / "run/resolv").write_text("nameserver 10.0.0.1\n")
    (tmp_path / "proc/net").mkdir()
    (tmp_path / "proc/net/if_inet6").write_text("fd4c4142000000000000000000000005 02 40 00 00 eth0\n")
    assert machine.address() == Address("eth0", "fd4c:4142::5")


def test_its_own_hosts_are_known(machine: Linux) -> None:
    assert "127.0.0.1" in machine.own_hosts()
