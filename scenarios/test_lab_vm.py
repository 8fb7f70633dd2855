"""The lab itself: what it promises of any virtual machine, whatever the machine is for."""

import hashlib
import os
import re
import signal
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from lab.errors import InfrastructureError, MachineDied, MisuseError, ProductError, WaitTimeout
from lab.net.segment import Segment
from lab.qemu.command import Disk
from lab.qemu.vm import VM
from lab.topology import Lab
from scenarios import lab_guest

KERNELS = {"kernel": "firmware"}


class Guests:
    """Makes small machines of one architecture."""

    def __init__(self, lab: Lab, arch: str, directory: Path) -> None:
        self.lab = lab
        self.arch = arch
        self.kernel, self.initrd = lab_guest.build(arch, directory)

    def __call__(
        self, name: str, *segments: Segment, disks: tuple[Disk, ...] = (), port: bool = False
    ) -> VM:
        """One, switched off."""
        return self.lab.vm(
            name,
            arch=self.arch,
            memory=256,
            kernel=self.kernel,
            initrd=self.initrd,
            append="quiet panic=-1",
            segments=segments,
            disks=disks,
            port=port,
        )

    def running(self, name: str, *segments: Segment, disks: tuple[Disk, ...] = (), port: bool = False) -> VM:
        """One, switched on."""
        made = self(name, *segments, disks=disks, port=port)
        made.start()
        return made


@pytest.fixture
def guests(lab: Lab, arch: str, tmp_path: Path) -> Guests:
    return Guests(lab, arch, tmp_path)


@pytest.mark.parametrize("over", ["serial", "port"])
def test_a_shell_gives_output_and_exit_codes(guests: Guests, over: Literal["serial", "port"]) -> None:
    """Commands run on the console, while the kernel writes to it too, and on a port where it never does."""
    vm = guests.running("one", port=over == "port")
    vm.wait_mark("init")
    shell = vm.shell(over=over)
    assert "quiet panic=-1" in shell.succeed("cat /proc/cmdline")
    assert shell.run("echo out; echo err >&2; exit 7") == (7, "out\nerr\n")
    shell.fail("ls /nowhere")
    with pytest.raises(ProductError, match="exited 1"):
        shell.succeed("ls /nowhere")
    noise = "( for i in $(seq 200); do echo '<3>noise noise noise' >/dev/kmsg; done ) &"
    long = shell.succeed(f"{noise} seq 1 3000")
    assert long.splitlines() == [str(number) for number in range(1, 3001)]
    if over == "port":
        assert not [line.text for line in vm.console.lines if "lab-" in line.text]
    sent = os.urandom(5000)
    shell.put("/tmp/it's here", sent)
    assert hashlib.sha256(sent).hexdigest() in shell.succeed('sha256sum <"/tmp/it\'s here"')
    assert shell.get("/tmp/it's here") == sent
    with pytest.raises(MisuseError, match="put"):
        shell.run("x" * 4000)
    with pytest.raises(WaitTimeout) as slow:
        shell.run("sleep 30", timeout=2)
    assert "last lines on the console" in str(slow.value)


def test_a_busy_host_misses_no_line(guests: Guests) -> None:
    """Nobody reads for a while in the middle of a boot: what the kernel has logged has all been heard."""
    vm = guests.lab.vm(
        "one", arch=guests.arch, memory=256, kernel=guests.kernel, initrd=guests.initrd, append="panic=-1"
    )
    vm.start()
    vm.console.wait_line("Linux version", timeout=60)

    def hurry() -> bool:
        time.sleep(2)  # its reader waits for the lock that is held here
        return True

    vm.console.wait(hurry, "turn", timeout=30)
    logged = vm.shell().succeed("dmesg -r").partition("Run /init")[0].splitlines()[:-1]
    heard = {line.text for line in vm.console.lines}
    # Those of level 7 are for its log alone.
    plain = re.compile(r"<(\d+)>(.*)")
    told = [match[2] for line in logged if (match := plain.match(line)) and int(match[1]) & 7 < 7]
    assert len(told) > 100
    assert [line for line in told if line not in heard] == []


def test_a_timeline_adds_up_to_the_wall_clock(guests: Guests) -> None:
    """Every second between power-on and the last mark is in one phase."""
    vm = guests.running("one")
    last = vm.wait_mark("init")
    phases = vm.timeline(KERNELS)
    assert list(phases) == ["firmware", "kernel", "init"]
    assert sum(phases.values()) == pytest.approx(last.arrived - vm.power_on, abs=0.01)
    assert all(seconds >= 0 for seconds in phases.values())


def test_a_panic_ends_every_wait_at_once(guests: Guests) -> None:
    """The error names the cause and carries the trace; QEMU's events tell the same."""
    vm = guests.running("one")
    vm.wait_mark("init")
    with pytest.raises(MisuseError, match="no virtio port"):
        vm.shell(over="port")
    shell = vm.shell()
    # The wait is longer than a test may take: only an error that comes at once passes.
    with pytest.raises(MachineDied, match="Kernel panic - not syncing: sysrq") as died:
        shell.run("echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger", timeout=300)
    assert "Call" in died.value.evidence
    vm.wait_off()
    names = [event.name for event in vm.events]
    assert "SHUTDOWN" in names
    # The arm64 kernel of the distribution has no driver for the panic device.
    assert ("GUEST_PANICKED" in names) is (guests.arch == "x86_64")
    with pytest.raises(MachineDied):
        vm.wait_mark("never")


def test_a_scenario_may_want_a_panic(guests: Guests) -> None:
    """No initial RAM disk and no root: the kernel says so, and the scenario waits for just that."""
    vm = guests("one")
    bare = guests.lab.vm("bare", arch=guests.arch, memory=256, kernel=guests.kernel, append="panic=-1")
    bare.start()
    assert "VFS" in bare.console.wait_death(timeout=60)
    assert bare.wait_event("SHUTDOWN").data["reason"] == "guest-reset"
    assert vm.qmp_status() == "off"


def test_a_machine_that_ends_ends_the_wait(guests: Guests) -> None:
    """By itself or from outside: nobody waits for a console that is gone."""
    vm = guests.running("one")
    vm.wait_mark("init")
    assert vm.qmp_status() == "running"
    vm.shell().run("(sleep 1; poweroff -f) &")
    with pytest.raises(MachineDied, match="switched off while waiting for mark never"):
        vm.wait_mark("never", timeout=300)
    assert vm.wait_event("SHUTDOWN").data["reason"] == "guest-shutdown"
    with pytest.raises(MachineDied, match="without NEVER"):
        vm.wait_event("NEVER", timeout=300)


def test_a_machine_starts_again(guests: Guests) -> None:
    """A power cycle: a new console, new marks, the same card on the same switch."""
    lan = guests.lab.segment("lan")
    vm, other = guests.running("one", lan), guests.running("other", lan)
    other.wait_mark("network")
    vm.wait_mark("network")
    boot = vm.shell().succeed("cat /proc/sys/kernel/random/boot_id")
    vm.stop()
    vm.stop()
    assert not vm.running
    vm.start()
    with pytest.raises(MisuseError, match="running already"):
        vm.start()
    vm.wait_mark("init")
    assert [mark.step for mark in vm.marks] == ["kernel", "network", "init"]
    assert vm.shell().succeed("cat /proc/sys/kernel/random/boot_id") != boot
    other.shell().succeed(f"ping -c 1 -W 5 {guests.lab.address(vm, lan)}")


def test_machines_reach_each_other_and_nothing_else(guests: Guests) -> None:
    """Two machines and their own segment: addresses, a download, a partition, a capture."""
    lan = guests.lab.segment("lan")
    server, client = guests.running("server", lan), guests.running("client", lan)
    server.wait_mark("network")
    client.wait_mark("network")
    shell, serving = client.shell(), server.shell()
    there = guests.lab.address(server, lan)
    assert str(there) in serving.succeed("ip -4 address show eth0")
    assert "default" not in shell.succeed("ip route")
    serving.succeed("head -c 8000000 /dev/urandom >/tmp/file; httpd -h /tmp")
    digest = serving.succeed("sha256sum </tmp/file")
    assert shell.succeed(f"wget -q -O - http://{there}/file | sha256sum") == digest
    assert lan.frames["server"] > 5000

    lan.partition(server)
    shell.fail(f"ping -c 2 -W 1 {there}")
    assert lan.port(server).dropped > 0
    lan.heal()
    shell.succeed(f"ping -c 1 -W 5 {there}")

    lan.port(client).drop = lambda frame: frame[12:14] == b"\x08\x00"
    shell.fail(f"ping -c 2 -W 1 {there}")
    lan.heal()
    assert b"GET /file" in lan.capture().read_bytes()


def test_segments_are_apart(guests: Guests) -> None:
    """What is on one segment does not reach another."""
    one, two = guests.lab.segment("one"), guests.lab.segment("two")
    vm, other = guests.running("vm", one), guests.running("other", two)
    vm.wait_mark("network")
    other.wait_mark("network")
    shell = vm.shell()
    # Each could answer the other, if a frame came across.
    for one_of_them in (shell, other.shell()):
        one_of_them.succeed("ip route add default dev eth0")
    shell.fail(f"ping -c 2 -W 1 {guests.lab.address(other, two)}")
    asking = guests.lab.address(vm, one)
    assert one.seen(lambda packet: packet.source == asking) or one.frames["vm"]
    assert two.seen(lambda packet: asking in (packet.source, packet.destination)) == []


def test_disks_take_what_they_may(guests: Guests, tmp_path: Path) -> None:
    """A machine reads its disks; a scratch disk forgets, another keeps."""
    scratch, kept, locked = (tmp_path / name for name in ("scratch, with a comma", "kept", "locked"))
    for path in (scratch, kept, locked):
        path.write_bytes(b"before".ljust(1 << 20, b"\0"))
    disks = (Disk(scratch), Disk(kept, access="read-write"), Disk(locked, access="read-only"))
    vm = guests.running("one", disks=disks)
    vm.wait_mark("init")
    shell = vm.shell()
    for name in ("vda", "vdb", "vdc"):
        assert shell.succeed(f"head -c 6 /dev/{name}") == "before"
    write = "printf after- | dd of=/dev/{} conv=fsync,notrunc 2>&1"
    shell.succeed(write.format("vda"))
    shell.succeed(write.format("vdb"))
    shell.fail(write.format("vdc"))
    assert shell.succeed("head -c 6 /dev/vda") == "after-"
    vm.stop()
    assert [path.read_bytes()[:6] for path in (scratch, kept, locked)] == [b"before", b"after-", b"before"]


def test_firmware_starts(lab: Lab, arch: str) -> None:
    """UEFI without anything to boot says so; the dialogue goes through pexpect."""
    vm = lab.vm("one", arch=arch, memory=256, firmware=lab_guest.FIRMWARE[arch])
    vm.start()
    dialogue = vm.console.spawn(since=0)
    drawn = r"UEFI Interactive Shell v\d|Boot Manager Menu"
    assert dialogue.expect(["no such thing", drawn], timeout=120) == 1
    with pytest.raises(WaitTimeout, match="nonsense") as late:
        dialogue.expect("nonsense", timeout=1)
    assert "UEFI" in late.value.evidence


def test_a_screen_shows_what_firmware_draws(lab: Lab, arch: str) -> None:
    """A picture with something on it, as soon as UEFI has a shell, or has started none and says so."""
    vm = lab.vm("one", arch=arch, memory=256, firmware=lab_guest.FIRMWARE[arch], display=True)
    vm.start()
    vm.console.spawn(since=0).expect(r"UEFI Interactive Shell v\d|Boot Manager Menu", timeout=120)
    picture = vm.screen()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", picture[16:24])
    assert (width, height) >= (640, 400)
    lit = zlib.decompress(b"".join(_chunks(picture, b"IDAT")))
    assert len(set(lit)) > 2
    blind = lab.vm("blind", arch=arch, memory=256, firmware=lab_guest.FIRMWARE[arch])
    with pytest.raises(MisuseError, match="no screen"):
        blind.screen()


def _chunks(picture: bytes, kind: bytes) -> Iterator[bytes]:
    position = 8
    while position < len(picture):
        (size,) = struct.unpack_from(">I", picture, position)
        if picture[position + 4 : position + 8] == kind:
            yield picture[position + 8 : position + 8 + size]
        position += 12 + size


@pytest.mark.lab(vcpus=0.6)
def test_a_seeded_machine_boots_twice_the_same(guests: Guests) -> None:
    """The same lines in the same order at the same times of its own, to hundredths of a second.

    Not to the last digit: x86_64 calibrates its clocks against a timer that the host's threads serve, so
    time stamps differ by some of its ticks where the host is busy, and so do the figures printed of it.
    """
    times, lines = [], []
    for name in ("one", "two"):
        vm = guests.lab.vm(
            name,
            arch=guests.arch,
            memory=256,
            kernel=guests.kernel,
            initrd=guests.initrd,
            append="panic=-1",
            seed=7,
        )
        vm.start()
        vm.wait_mark("init", timeout=180)
        times.append([mark.t for mark in vm.marks])
        told = vm.console.text.partition('"step":"init"')[0]
        plain = re.sub(r"0x[0-9a-f]+|[\d.-]+", "0", told)
        lines.append([line for line in plain.splitlines() if "[" in line])
        vm.stop()
    assert times[0] == pytest.approx(times[1], abs=0.05)
    assert [(one, two) for one, two in zip(*lines, strict=True) if one != two] == []
    assert len(lines[0]) > 100


def test_what_qemu_says_is_in_the_error(guests: Guests) -> None:
    """A machine that cannot start fails at once, as the host's fault, in QEMU's own words."""
    vm = guests("one")
    vm.argv += ["-device", "no-such-device"]
    with pytest.raises(InfrastructureError, match="no-such-device"):
        vm.start()
    assert not vm.running
    assert vm.qmp_status() == "off"


def test_a_killed_qemu_is_noticed(guests: Guests) -> None:
    """From outside, without a word: the console ends, and so does the wait."""
    vm = guests.running("one")
    vm.wait_mark("kernel")
    assert vm.pid is not None
    os.kill(vm.pid, signal.SIGKILL)
    with pytest.raises(InfrastructureError, match="QEMU was killed by SIGKILL"):
        vm.wait_mark("never", timeout=300)
    # Its console closes a moment before it can be waited for.
    vm.wait_off(timeout=5)
    assert vm.pid is None
