import platform
import shlex
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest

from lab.errors import MisuseError
from lab.qemu.command import PROGRAMS, Bus, Card, Disk, Firmware, Memory, Spec, argv, reproduce

BUSES: tuple[Bus, ...] = get_args(Bus)
CONSOLE, QMP = Path("/run/console"), Path("/run/qmp")


def spec(arch: str = "x86_64", **changes: Any) -> Spec:
    plain = Spec("one", arch, 256, 1, Path("/kernel"), Path("/initrd"), "console=x quiet")
    return plain._replace(**changes)


def options(words: list[str], name: str) -> list[str]:
    return [words[place + 1] for place, word in enumerate(words) if word == name]


def test_a_panic_is_told_and_printed() -> None:
    words = argv(spec(), console=CONSOLE, qmp=QMP)
    assert "-no-reboot" in words
    assert options(words, "-action") == ["panic=none"]
    assert "pvpanic-pci" in options(words, "-device")


def test_nothing_comes_by_default() -> None:
    for arch in PROGRAMS:
        words = argv(spec(arch), console=CONSOLE, qmp=QMP)
        assert words[0] == PROGRAMS[arch]
        assert "-nodefaults" in words
        assert not options(words, "-netdev")
        (accel,) = options(words, "-accel")
        assert accel.split(",")[0] == "tcg"


def test_kernel_parts_and_their_absence() -> None:
    words = argv(spec(), console=CONSOLE, qmp=QMP)
    assert (options(words, "-kernel"), options(words, "-initrd")) == (["/kernel"], ["/initrd"])
    assert options(words, "-append") == ["console=x quiet"]
    assert "-initrd" not in argv(spec(initrd=None), console=CONSOLE, qmp=QMP)
    firmware = Firmware(Path("/code"), Path("/variables"))
    words = argv(spec(kernel=None, initrd=None, append="", firmware=firmware), console=CONSOLE, qmp=QMP)
    assert "-kernel" not in words
    assert "-append" not in words
    code, variables = options(words, "-drive")
    assert "readonly=on" in code
    assert "readonly" not in variables


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"kernel": None, "initrd": None, "append": ""}, "neither a kernel nor firmware"),
        ({"kernel": None, "firmware": Firmware(Path("/c"), Path("/v"))}, "no kernel to give them to"),
    ],
)
def test_what_cannot_start_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(MisuseError, match=why):
        argv(spec(**changes), console=CONSOLE, qmp=QMP)


def test_kvm_runs_the_hosts_own_kind_only() -> None:
    own, other = ("arm64", "x86_64") if platform.machine() == "aarch64" else ("x86_64", "arm64")
    assert options(argv(spec(own, accel="kvm"), console=CONSOLE, qmp=QMP), "-cpu") == ["host"]
    with pytest.raises(MisuseError, match=f"the machine is {other}"):
        argv(spec(other, accel="kvm"), console=CONSOLE, qmp=QMP)


def test_cards_and_disks_in_order() -> None:
    cards = tuple(Card(f"52:54:00:00:00:0{n}", Path(f"/here{n}"), Path(f"/switch{n}")) for n in range(2))
    disks = (Disk(Path("/a")), Disk(Path("/b,c"), bus="usb", format="qcow2", access="read-only"))
    words = argv(spec(cards=cards, disks=disks), console=CONSOLE, qmp=QMP)
    devices = options(words, "-device")
    assert [device for device in devices if "mac=" in device] == [
        f"virtio-net-pci,netdev=net{n},mac=52:54:00:00:00:0{n},romfile=" for n in range(2)
    ]
    first, second = options(words, "-drive")
    assert "snapshot=on" in first
    assert second.endswith("readonly=on,file=/b,,c")
    assert devices.index("qemu-xhci,id=usb") < devices.index("usb-storage,bus=usb.0,drive=disk1")


def test_a_port_is_a_line_of_its_own_and_nobody_has_one_unasked() -> None:
    assert "port" not in " ".join(argv(spec(), console=CONSOLE, qmp=QMP)).replace("transport", "")
    words = argv(spec(port=True), console=CONSOLE, qmp=QMP)
    assert "socket,id=port,path=/run/port" in options(words, "-chardev")
    devices = options(words, "-device")
    assert devices.index("virtio-serial-pci") < devices.index("virtserialport,chardev=port,name=lab")
    assert "chardev=port" not in reproduce(words)


@pytest.mark.parametrize(("arch", "device"), [("x86_64", "tpm-crb"), ("arm64", "tpm-tis-device")])
def test_a_tpm_is_behind_a_socket_of_its_own(arch: str, device: str) -> None:
    assert "tpm" not in " ".join(argv(spec(arch=arch), console=CONSOLE, qmp=QMP))
    words = argv(spec(arch=arch, tpm=True), console=CONSOLE, qmp=QMP)
    assert "socket,id=tpm,path=/run/tpm" in options(words, "-chardev")
    assert options(words, "-device")[-1] == f"{device},tpmdev=tpm"
    assert "tpm" not in reproduce(words)


def test_a_recorded_machine_writes_its_file_and_a_clone_does_not() -> None:
    recorded = argv(spec(), console=CONSOLE, qmp=QMP, memory=Memory(Path("/a,b"), frozen=False))
    clone = argv(spec(), console=CONSOLE, qmp=QMP, memory=Memory(Path("/a,b"), frozen=True))
    assert "memory-backend-file,id=memory,size=256M,mem-path=/a,,b,share=on" in options(recorded, "-object")
    assert "memory-backend-file,id=memory,size=256M,mem-path=/a,,b,share=off" in options(clone, "-object")
    assert options(clone, "-incoming") == ["defer"]
    assert "-S" in clone
    assert "-S" not in recorded
    # Otherwise they are the same machine, or its state would not fit.
    same = [word for word in clone if word not in ("-S", "-incoming", "defer")]
    assert [word.replace("share=off", "share=on") for word in same] == recorded


def test_a_machine_of_its_own_time_and_chance() -> None:
    words = argv(spec(seed=7), console=CONSOLE, qmp=QMP)
    assert options(words, "-seed") == ["7"]
    assert options(words, "-icount")[0].startswith("shift=")
    assert "auto" not in options(words, "-icount")[0]
    assert not [word for word in words if "urandom" in word]
    with pytest.raises(MisuseError, match="host's time"):
        argv(spec(seed=7, accel="kvm"), console=CONSOLE, qmp=QMP)


def test_qemu_takes_every_machine(tmp_path: Path) -> None:
    """It is asked to start paused and to leave: what it would not take, it says before that."""
    disk = tmp_path / "disk, of a kind"
    disk.write_bytes(bytes(1 << 20))
    kernel = tmp_path / "kernel"
    kernel.write_bytes(bytes(1 << 16))
    for arch in PROGRAMS:
        card = Card("52:54:00:00:00:01", tmp_path / f"{arch}.here", tmp_path / f"{arch}.switch")
        made = spec(
            arch,
            kernel=kernel,
            initrd=None,
            cards=(card,),
            disks=(*(Disk(disk, bus=bus) for bus in BUSES), Disk(disk, bus="usb", access="read-only")),
            port=True,
        )
        words = shlex.split(reproduce(argv(made, console=CONSOLE, qmp=QMP)))
        words = [*words[:-2], "-S", "-monitor", "stdio"]
        done = subprocess.run(words, input="quit\n", capture_output=True, text=True, timeout=60, check=False)
        # x86_64 looks into its kernel before it starts: an empty one is where a sound command line ends.
        sound = done.returncode == 0 or "invalid kernel header" in done.stderr
        assert sound, done.stderr


def test_the_command_to_reproduce_needs_no_socket() -> None:
    card = Card("52:54:00:00:00:01", Path("/here"), Path("/switch"))
    line = reproduce(argv(spec(cards=(card,)), console=CONSOLE, qmp=QMP))
    assert "/run/" not in line
    assert "/here" not in line
    assert "user,restrict=on,id=net0" in line
    assert line.endswith("-serial mon:stdio")


def test_a_machine_may_boot_from_its_card() -> None:
    spec = Spec("client", "x86_64", 512, 1, None, None, "", option_rom=True)._replace(
        cards=(Card("52:54:00:00:00:00", Path("a"), Path("b")),)
    )
    words = argv(spec, console=Path("console"), qmp=Path("qmp"))
    assert "virtio-net-pci,netdev=net0,mac=52:54:00:00:00:00,bootindex=0" in words
    # Then there is a BIOS, which has only the serial line to speak on.
    assert "q35,graphics=off" in words


def test_firmware_begins_with_the_first_disk() -> None:
    """Unless a kernel is given, or a card that boots."""
    firmware = Firmware(Path("/code"), Path("/variables"))
    disks = (Disk(Path("/a"), bus="cd"), Disk(Path("/b"), bus="ahci"))
    alone = spec(kernel=None, initrd=None, append="", firmware=firmware, disks=disks)
    devices = options(argv(alone, console=CONSOLE, qmp=QMP), "-device")
    assert devices.count("ich9-ahci,id=ahci") == 1
    assert "ide-cd,bus=ahci.0,drive=disk0,bootindex=0" in devices
    assert "ide-hd,bus=ahci.1,drive=disk1,bootindex=1" in devices
    for other in (alone._replace(option_rom=True), spec(firmware=firmware, disks=disks)):
        devices = options(argv(other, console=CONSOLE, qmp=QMP), "-device")
        assert "ide-cd,bus=ahci.0,drive=disk0" in devices
