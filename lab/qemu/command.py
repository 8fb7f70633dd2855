"""QEMU's command line, per architecture. Pure: what it takes to start a machine, nothing is started."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

#: The serial console's name on each architecture's command line.
CONSOLES: Mapping[str, str] = {"x86_64": "ttyS0", "arm64": "ttyAMA0"}
PROGRAMS: Mapping[str, str] = {"x86_64": "qemu-system-x86_64", "arm64": "qemu-system-aarch64"}
# arm64: a cortex-a57 is what TCG emulates quickest of the 64-bit cores; GICv2 because a GICv3's
# tables cannot be taken back before a kexec without EFI.
_MACHINES: Mapping[str, Sequence[str]] = {
    "x86_64": ("-machine", "q35", "-cpu", "max"),
    "arm64": ("-machine", "virt,gic-version=2", "-cpu", "cortex-a57"),
}


class Card(NamedTuple):
    """A network card: its hardware address and the two sockets of its cable."""

    mac: str
    here: Path
    switch: Path


class Spec(NamedTuple):
    """What a virtual machine is made of.

    Attributes:
        memory: MiB.
        append: kernel command line.
    """

    name: str
    arch: str
    memory: int
    cpus: int
    kernel: Path
    initrd: Path | None
    append: str
    cards: tuple[Card, ...] = ()
    accel: str = "tcg"
    extra: tuple[str, ...] = ()


def argv(spec: Spec, *, console: Path, qmp: Path) -> list[str]:
    """The command line.

    Args:
        spec: the machine.
        console: a listening UNIX socket for its serial console.
        qmp: a listening UNIX socket for its monitor.
    """
    words = [PROGRAMS[spec.arch], "-name", f"{spec.name},process=lab-{spec.name}", "-nodefaults", "-no-user-config"]
    words += [*_MACHINES[spec.arch], "-accel", spec.accel, "-smp", str(spec.cpus), "-m", f"{spec.memory}M"]
    words += ["-display", "none", "-vga", "none"] if spec.arch == "x86_64" else ["-display", "none"]
    # A panic is told (pvpanic) and then printed to its end before the machine goes down.
    words += ["-no-reboot", "-action", "panic=none"]
    words += ["-chardev", f"socket,id=console,path={console}", "-serial", "chardev:console"]
    words += ["-chardev", f"socket,id=qmp,path={qmp}", "-mon", "chardev=qmp,mode=control"]
    words += ["-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng"]
    words += ["-device", "pvpanic-pci"]
    words += ["-kernel", str(spec.kernel)]
    if spec.initrd:
        words += ["-initrd", str(spec.initrd)]
    words += ["-append", spec.append]
    for number, card in enumerate(spec.cards):
        sockets = f"local.type=unix,local.path={card.here},remote.type=unix,remote.path={card.switch}"
        words += ["-netdev", f"dgram,id=net{number},{sockets}"]
        # No option ROM: nothing boots from this card, and firmware would wait for it.
        words += ["-device", f"virtio-net-pci,netdev=net{number},mac={card.mac},romfile="]
    return [*words, *spec.extra]


def reproduce(words: Sequence[str]) -> str:
    """The same machine by hand: console on the terminal, no monitor, cards on a network of their own."""
    skip = {"-chardev", "-mon", "-serial", "-netdev"}
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
        kept.append(words[position])
        position += 1
    return shlex.join([*kept, "-serial", "mon:stdio"])
