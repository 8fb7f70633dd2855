"""QEMU's command line, per architecture. Pure: what it takes to start a machine, nothing is started."""

import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from lab.errors import MisuseError

#: The serial console's name on each architecture's command line.
CONSOLES: Mapping[str, str] = {"x86_64": "ttyS0", "arm64": "ttyAMA0"}
PROGRAMS: Mapping[str, str] = {"x86_64": "qemu-system-x86_64", "arm64": "qemu-system-aarch64"}
# arm64: GICv2, because a GICv3's tables cannot be taken back before a kexec without EFI.
_MACHINES: Mapping[str, str] = {"x86_64": "q35", "arm64": "virt,gic-version=2"}
# A cortex-a57 is what TCG emulates quickest of the 64-bit cores.
_EMULATED: Mapping[str, str] = {"x86_64": "max", "arm64": "cortex-a57"}
#: MiB of translated code. When a kernel hands over to another, the new one writes over the old one's
#: code, and QEMU looks up and drops each translation of it, one by one: with QEMU's own 1024 MiB the
#: second kernel takes twice as long to start. What is dropped all at once costs next to nothing.
_TRANSLATED = 96
_HOSTS: Mapping[str, str] = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
# What the firmware and the kernel of each architecture can draw on without a driver of their own.
_DISPLAYS: Mapping[str, str] = {"x86_64": "VGA", "arm64": "virtio-gpu-pci"}
#: An instruction takes 2 to this power nanoseconds. A fixed number: `auto` measures the host.
_SHIFT = 3
#: When a deterministic machine is switched on.
_BIRTH = "2030-01-01T00:00:00"
#: The file name of a virtio port's socket, and its device.
PORT, _PORT = "port", "virtserialport"
#: The file name of a TPM's socket, and its device.
TPM = "tpm"
_TPMS: Mapping[str, str] = {"x86_64": "tpm-crb", "arm64": "tpm-tis-device"}


class _Bus(NamedTuple):
    """A disk's device, and what that is plugged into where no machine has it by itself."""

    device: str
    controller: str = ""


_BUSES: Mapping[str, _Bus] = {
    "virtio": _Bus("virtio-blk-pci,drive=disk{0}"),
    "usb": _Bus("usb-storage,bus=usb.0,drive=disk{0}", "qemu-xhci,id=usb"),
    "nvme": _Bus("nvme,serial=disk{0},drive=disk{0}"),
    "ahci": _Bus("ide-hd,bus=ahci.{0},drive=disk{0}", "ich9-ahci,id=ahci"),
}
#: ARM64's firmware has no driver for AHCI.
_DRIVES: Mapping[str, _Bus] = {
    "x86_64": _Bus("ide-cd,bus=ahci.{0},drive=disk{0}", "ich9-ahci,id=ahci"),
    "arm64": _Bus("scsi-cd,bus=scsi.0,drive=disk{0}", "virtio-scsi-pci,id=scsi"),
}


class Card(NamedTuple):
    """A network card: its hardware address and the two sockets of its cable.

    Attributes:
        mac: hardware address.
        machine_socket: QEMU's own, as `lab.net.switch.Port` calls it, too.
        switch_socket: the switch's, to which QEMU sends.
    """

    mac: str
    machine_socket: Path
    switch_socket: Path


Bus = Literal["virtio", "usb", "nvme", "ahci", "cd"]


class Disk(NamedTuple):
    """A disk.

    Attributes:
        path: its image.
        bus: how it is plugged in; a USB stick is `usb`; `cd` is a CD in a drive, read-only.
        format: of the image.
        access: `scratch` lets the machine write and forgets it at power-off.
    """

    path: Path
    bus: Bus = "virtio"
    format: Literal["raw", "qcow2"] = "raw"
    access: Literal["read-only", "read-write", "scratch"] = "scratch"


class Firmware(NamedTuple):
    """UEFI firmware.

    Attributes:
        code: the firmware itself.
        variables: what a machine starts with; it writes to a copy.
        guarded: whether only the firmware writes variables, in system management mode, as builds of OVMF
            with Secure Boot demand; x86_64 alone.
    """

    code: Path
    variables: Path
    guarded: bool = False


class Spec(NamedTuple):
    """What a virtual machine is made of.

    Attributes:
        memory: MiB.
        append: kernel command line.
        accel: `tcg`, or `kvm` or `hvf` where the host has the same architecture.
        display: whether there is a screen.
        seed: of a machine whose time and chance are its own; None for one that lives in the host's.
        option_rom: whether its network cards carry iPXE, and it boots from the first of them.
        cpu: QEMU's name of the processor model, with its features; empty: the best that runs here.
        port: whether it has a virtio port, `/dev/vport*` there: a line that its kernel never writes to.
        reboots: whether it starts anew when it asks for a reset; otherwise that switches it off.
        tpm: whether it has a TPM 2.0.
    """

    name: str
    arch: str
    memory: int
    cpus: int
    kernel: Path | None
    initrd: Path | None
    append: str
    cards: tuple[Card, ...] = ()
    disks: tuple[Disk, ...] = ()
    firmware: Firmware | None = None
    accel: str = "tcg"
    display: bool = False
    seed: int | None = None
    extra: tuple[str, ...] = ()
    option_rom: bool = False
    port: bool = False
    cpu: str = ""
    reboots: bool = False
    tpm: bool = False


class Memory(NamedTuple):
    """A file that is a machine's memory.

    Attributes:
        path: of the file.
        frozen: whether it is a stage's: the machine then waits for the rest of its state, and what it
            writes is its own. Otherwise everything it writes is in the file.
    """

    path: Path
    frozen: bool


def argv(spec: Spec, *, console: Path, qmp: Path, memory: Memory | None = None) -> list[str]:
    """The command line.

    Args:
        spec: the machine.
        console: its serial console is two pipes, `.in` and `.out` behind this name; `port` and `tpm`, beside
            it, are listening UNIX sockets for its virtio port and of its TPM.
        qmp: a listening UNIX socket for its monitor.
        memory: where its memory is; nowhere in particular when None.

    Raises:
        MisuseError: the machine cannot be.
    """
    if spec.seed is not None and spec.accel != "tcg":
        raise MisuseError(f"{spec.name}: {spec.accel} runs in the host's time; only tcg has its own")
    if spec.kernel is None and spec.firmware is None and not spec.option_rom:
        raise MisuseError(f"{spec.name} has neither a kernel nor firmware: nothing would start")
    if spec.kernel is None and (spec.initrd or spec.append):
        raise MisuseError(f"{spec.name} has an initrd or a command line, and no kernel to give them to")
    words = [PROGRAMS[spec.arch], "-name", f"{spec.name},process=lab-{spec.name}"]
    words += ["-nodefaults", "-no-user-config", "-display", "none"]
    # A BIOS says on the serial line what it does, where it is told that there is no screen.
    blind = ",graphics=off" if spec.kernel is None and spec.firmware is None and not spec.display else ""
    backend = ",memory-backend=memory" if memory else ""
    guard = ",smm=on" if spec.firmware and spec.firmware.guarded else ""
    words += ["-machine", _MACHINES[spec.arch] + guard + blind + backend]
    words += ["-cpu", _cpu(spec), "-accel", _accel(spec)]
    if memory:
        share = "off" if memory.frozen else "on"
        file = f"memory-backend-file,id=memory,size={spec.memory}M,mem-path={_value(memory.path)}"
        words += ["-object", f"{file},share={share}"]
        words += ["-S", "-incoming", "defer"] if memory.frozen else []
    if spec.seed is not None:
        words += ["-icount", f"shift={_SHIFT},sleep=off", "-rtc", f"base={_BIRTH},clock=vm"]
        words += ["-seed", str(spec.seed)]
    words += ["-smp", str(spec.cpus), "-m", f"{spec.memory}M"]
    words += [] if spec.reboots else ["-no-reboot"]
    # A panic is told (pvpanic) and then printed to its end before the machine goes down.
    words += ["-action", "panic=none", "-device", "pvpanic-pci"]
    words += ["-chardev", f"pipe,id=console,path={_value(console)}", "-serial", "chardev:console"]
    words += ["-chardev", f"socket,id=qmp,path={_value(qmp)}", "-mon", "chardev=qmp,mode=control"]
    if spec.seed is None:
        # One with a seed has chance from its processor or device tree, which follow -seed; this card would
        # answer whenever the host's threads come to it.
        words += ["-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng"]
    if spec.display:
        words += ["-device", _DISPLAYS[spec.arch]]
    if spec.firmware:
        code, variables, guarded = spec.firmware
        words += ["-global", "driver=cfi.pflash01,property=secure,value=on"] if guarded else []
        words += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={_value(code)}"]
        words += ["-drive", f"if=pflash,unit=1,format=raw,file={_value(variables)}"]
    if spec.kernel:
        words += ["-kernel", str(spec.kernel), "-append", spec.append]
    if spec.initrd:
        words += ["-initrd", str(spec.initrd)]
    buses = [_DRIVES[spec.arch] if disk.bus == "cd" else _BUSES[disk.bus] for disk in spec.disks]
    for controller in dict.fromkeys(bus.controller for bus in buses if bus.controller):
        words += ["-device", controller]
    # Firmware that is told where to begin tries nothing else before; without a kernel, a disk is that.
    boots = spec.kernel is None and not spec.option_rom
    for number, (disk, bus) in enumerate(zip(spec.disks, buses, strict=True)):
        words += ["-drive", _drive(number, disk)]
        words += ["-device", bus.device.format(number) + (f",bootindex={number}" if boots else "")]
    for number, card in enumerate(spec.cards):
        sockets = f"local.type=unix,local.path={card.machine_socket}"
        sockets += f",remote.type=unix,remote.path={card.switch_socket}"
        words += ["-netdev", f"dgram,id=net{number},{sockets}"]
        # Without an option ROM nothing boots from a card, and firmware would wait for it.
        boot = f",bootindex={number}" if spec.option_rom else ",romfile="
        words += ["-device", f"virtio-net-pci,netdev=net{number},mac={card.mac}{boot}"]
    if spec.port:
        words += ["-chardev", f"socket,id=port,path={_value(console.with_name(PORT))}"]
        words += ["-device", "virtio-serial-pci", "-device", f"{_PORT},chardev=port,name=lab"]
    if spec.tpm:
        words += ["-chardev", f"socket,id=tpm,path={_value(console.with_name(TPM))}"]
        words += ["-tpmdev", "emulator,id=tpm,chardev=tpm", "-device", f"{_TPMS[spec.arch]},tpmdev=tpm"]
    return [*words, *spec.extra]


def _cpu(spec: Spec) -> str:
    if spec.cpu:
        return spec.cpu
    if spec.accel == "tcg":
        return _EMULATED[spec.arch]
    host = _HOSTS.get(platform.machine(), platform.machine())
    if host != spec.arch:
        raise MisuseError(f"{spec.name}: {spec.accel} runs {host} here, and the machine is {spec.arch}")
    return "host"


def _accel(spec: Spec) -> str:
    return f"tcg,tb-size={_TRANSLATED}" if spec.accel == "tcg" else spec.accel


def _drive(number: int, disk: Disk) -> str:
    options = {
        "read-only": "readonly=on",
        "read-write": "readonly=off",
        "scratch": "readonly=off,snapshot=on",
    }[disk.access]
    return f"if=none,id=disk{number},format={disk.format},{options},file={_value(disk.path)}"


def _value(path: Path) -> str:
    """A path inside an option, where a comma ends a value unless it is doubled."""
    return str(path).replace(",", ",,")


def reproduce(words: Sequence[str]) -> str:
    """The same machine by hand: console on the terminal, no monitor, cards on a network of their own."""
    skip = {"-chardev", "-mon", "-serial", "-netdev", "-tpmdev"}
    kept: list[str] = []
    position = 0
    card = 0
    while position < len(words):
        if words[position] in skip:
            if words[position] == "-netdev":
                kept += ["-netdev", f"user,restrict=on,id=net{card}"]
                card += 1
            position += 2
            continue
        if words[position] == "-device" and words[position + 1].startswith((_PORT, "tpm-")):
            position += 2
            continue
        kept.append(words[position])
        position += 1
    return shlex.join([*kept, "-serial", "mon:stdio"])
