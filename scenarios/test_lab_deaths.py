"""Machines that die, each in its own way; every wait ends, and says how."""

import struct
import subprocess
import time
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import SymbolTableSection

from boot import tree
from lab.errors import MachineDied
from lab.qemu.command import Disk
from lab.qemu.vm import VM
from lab.topology import Lab
from phase.boot import cpio
from scenarios import lab_guest

#: The wait is longer than a scenario may take: only an error that comes by itself passes.
NEVER = 3000
#: Read from address 0; jump to itself, without interrupts where the clock's would count as progress.
#: For kernel code, after what the tracer may patch.
FAULT = {
    "x86_64": bytes.fromhex("488b042500000000"),
    "arm64": struct.pack("<2I", 0xD2800000, 0xF9400000),
}
SPIN = {"x86_64": bytes.fromhex("faebfe"), "arm64": struct.pack("<I", 0x14000000)}
_SKIPPED = {"x86_64": 5, "arm64": 12}
#: What ends a signed module. Unsigned ones are loaded; those with a wrong signature are not.
_SIGNED = b"~Module signature appended~\n"


class Guests:
    """Makes small machines of one architecture."""

    def __init__(self, lab: Lab, arch: str, directory: Path) -> None:
        self.lab = lab
        self.arch = arch
        self.directory = directory
        self.kernel, self.initrd = lab_guest.build(arch, directory)

    def __call__(
        self, append: str = "", *, disks: tuple[Disk, ...] = (), initrd: Path | None = None, cpus: int = 1
    ) -> VM:
        """One that runs, at its shell."""
        vm = self.lab.vm(
            "one",
            arch=self.arch,
            memory=128,
            cpus=cpus,
            kernel=self.kernel,
            initrd=initrd or self.initrd,
            append=f"panic=-1 {append}".strip(),
            disks=disks,
        )
        vm.start()
        return vm

    def with_module(self, code: bytes) -> Path:
        """A RAM disk that has a module whose first act is this."""
        return lab_guest.with_files(
            self.initrd, self.directory / "with.cpio", [cpio.regular("bad.ko", _broken(self.arch, code))]
        )


@pytest.fixture
def guests(lab: Lab, arch: str, tmp_path: Path) -> Guests:
    return Guests(lab, arch, tmp_path)


def _broken(arch: str, code: bytes) -> bytes:
    """A module of the distribution, its init function overwritten."""
    root = tree.unpacked(arch) / "root"
    source = next((root / "lib/modules").rglob("dummy.ko"))
    module = bytearray(source.read_bytes())
    with source.open("rb") as file:
        elf = ELFFile(file)
        symbols = elf.get_section_by_name(".symtab")
        assert isinstance(symbols, SymbolTableSection)
        (init,) = symbols.get_symbol_by_name("init_module") or []
        section = elf.get_section(init["st_shndx"])
        start = init["st_value"] + _SKIPPED[arch]
        offset = section["sh_offset"] + start
        relocations = elf.get_section_by_name(f".rela{section.name}")
        assert isinstance(relocations, RelocationSection)
        for number, entry in enumerate(relocations.iter_relocations()):
            if start - 8 < entry["r_offset"] < start + len(code):
                # Type 0 is none, on both architectures.
                place = relocations["sh_offset"] + number * relocations["sh_entsize"] + 8
                module[place : place + 8] = bytes(8)
    module[offset : offset + len(code)] = code
    return bytes(module).removesuffix(_SIGNED)


def _dies(vm: VM, kind: str, command: str) -> MachineDied:
    """Run something deadly; the error names the kind, within two seconds of the last byte."""
    shell = vm.shell()
    with pytest.raises(MachineDied, match=kind) as died:
        shell.run(command, timeout=NEVER)
    assert time.monotonic() - vm.console.heard < 2
    assert died.value.owner == "machine"
    assert "last lines on the console" in died.value.evidence
    return died.value


def test_a_panic(guests: Guests) -> None:
    vm = guests()
    vm.wait_mark("init")
    _dies(vm, "kernel panic: .*sysrq", "echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger")


@pytest.mark.lab(vcpus=0.5)
def test_an_oops(guests: Guests) -> None:
    """Kernel code reads from nowhere; the machine goes on, and cannot be trusted any more."""
    vm = guests(initrd=guests.with_module(FAULT[guests.arch]))
    vm.wait_mark("init")
    _dies(vm, "kernel oops: .*NULL pointer", "insmod /bad.ko; sleep 1000")


def test_a_stall(guests: Guests) -> None:
    """Kernel code never ends; the other processor, whose processes end, waits for it."""
    vm = guests("rcupdate.rcu_cpu_stall_timeout=3", initrd=guests.with_module(SPIN[guests.arch]), cpus=2)
    vm.wait_mark("init")
    _dies(vm, "RCU stall: ", "(while :; do sleep 1; done) & insmod /bad.ko")


@pytest.mark.lab(vcpus=0.5)  # it mostly waits
def test_a_hung_task(guests: Guests, tmp_path: Path) -> None:
    """Somebody writes to a file system that is frozen."""
    image = tmp_path / "disk.ext4"
    image.touch()
    subprocess.run(["mke2fs", "-q", "-t", "ext4", image, "16M"], check=True)
    vm = guests(disks=(Disk(image),))
    vm.wait_mark("init")
    vm.shell().succeed(
        "mkdir /disk && mount /dev/vda /disk && echo 2 >/proc/sys/kernel/hung_task_timeout_secs"
    )
    _dies(vm, "hung task: ", "fsfreeze --freeze /disk && echo more >/disk/file")


def test_no_memory_left(guests: Guests) -> None:
    vm = guests()
    vm.wait_mark("init")
    _dies(vm, "out of memory: ", "tail /dev/zero; sleep 1000")


def test_a_reboot_loop(guests: Guests) -> None:
    """Its init ends, its kernel panics, and it begins again, for as long as nobody looks."""
    initrd = guests.directory / "loop.cpio"
    lab_guest.pack(guests.arch, initrd, init="#!/bin/sh\nmount -t proc proc /proc\nreboot -f\n", modules=())
    vm = guests.lab.vm(
        "one", arch=guests.arch, memory=128, kernel=guests.kernel, initrd=initrd, append="panic=-1"
    )
    # The lab's machines end when they restart; a board would not.
    vm.argv += ["-action", "reboot=reset"]
    vm.start()
    with pytest.raises(MachineDied, match="reboot loop: kernel number 4") as died:
        vm.wait_mark("init", timeout=NEVER)
    assert died.value.owner == "machine"


@pytest.mark.lab(vcpus=0.5)  # it mostly waits
def test_a_wedged_init(guests: Guests) -> None:
    """Nothing is wrong, and nothing happens."""
    initrd = guests.directory / "wedged.cpio"
    lab_guest.pack(
        guests.arch, initrd, init="#!/bin/sh\necho here\nwhile :; do sleep 1000; done\n", modules=()
    )
    vm = guests(initrd=initrd)
    vm.console.wait_line("here", timeout=60)
    with pytest.raises(MachineDied, match=r"silence: not a byte for .* waiting for mark init"):
        vm.wait_mark("init", timeout=NEVER, quiet=5)
    assert time.monotonic() - vm.console.heard < 5 * vm.console.factor + 2
