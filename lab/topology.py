"""A topology: machines and the segments they are plugged into, and one place that takes it all down."""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

from lab.errors import InfrastructureError, MisuseError
from lab.net.segment import Segment
from lab.qemu.command import CONSOLES, Card, Disk, Firmware, Spec
from lab.qemu.vm import VM

#: Names become files and sockets; a socket's path has 107 bytes at most.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,23}")
_LONGEST_DIRECTORY = 70
_PREFIX = "lab"
_OWNED = re.compile(rf"{_PREFIX}-(\d+)-(\d+)-\w+")


class Lab:
    """Makes segments and machines, and takes down what it made.

    Args:
        factor: timeouts are multiplied by this; `LAB_TIMEOUT_FACTOR` when left out.

    Attributes:
        machines: by name.
        segments: by name.
        directory: everything of this lab on disk; gone when it closes.
    """

    def __init__(self, *, factor: float | None = None) -> None:
        base = Path(tempfile.gettempdir())
        sweep(base)
        owner = f"{os.getpid()}-{_started(os.getpid())}"
        self.machines: dict[str, VM] = {}
        self.segments: dict[str, Segment] = {}
        self._factor = _factor() if factor is None else factor
        self.directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}-{owner}-", dir=base))
        if len(os.fsencode(self.directory)) > _LONGEST_DIRECTORY:
            self.directory.rmdir()
            raise InfrastructureError(f"{base} is too long for sockets below it; set TMPDIR to a short path")

    def segment(self, name: str) -> Segment:
        """A new segment.

        Raises:
            MisuseError: the name is taken, or none.
        """
        _check(name, self.segments)
        self.segments[name] = Segment(name, self.directory, len(self.segments))
        return self.segments[name]

    def vm(
        self,
        name: str,
        *,
        arch: str,
        kernel: Path | None = None,
        initrd: Path | None = None,
        append: str = "",
        memory: int = 512,
        cpus: int = 1,
        segments: tuple[Segment, ...] = (),
        disks: tuple[Disk, ...] = (),
        firmware: Firmware | None = None,
        accel: str = "tcg",
    ) -> VM:
        """A new virtual machine, switched off.

        Args:
            name: unique in this lab; letters, digits and `-`.
            arch: `x86_64` or `arm64`.
            kernel: what to start; firmware alone finds its own on a disk.
            initrd: its initial RAM disk.
            append: its command line; the console is added.
            memory: MiB.
            cpus: virtual processors.
            segments: one network card each.
            disks: in the order the machine finds them.
            firmware: UEFI; QEMU's own when left out.
            accel: `tcg` or `kvm`.

        Raises:
            MisuseError: there can be no such machine.
        """
        if arch not in CONSOLES:
            raise MisuseError(f"no machine of architecture {arch!r}; known: {', '.join(CONSOLES)}")
        _check(name, self.machines)
        missing = [
            path for path in (kernel, initrd, *(disk.path for disk in disks)) if path and not path.exists()
        ]
        if missing:
            raise MisuseError(f"{name}: there is no {missing[0]}")
        directory = self.directory / f"vm-{name}"
        directory.mkdir()
        if firmware:
            # Its own variables: it writes them, and keeps them from one start to the next.
            variables = Path(shutil.copyfile(firmware.variables, directory / "variables.fd"))
            firmware = Firmware(firmware.code, variables)
        cards = []
        for segment in segments:
            port = segment.switch.attach(name)
            cards.append(Card(self._mac(segment, name), port.there, port.here))
        line = f"console={CONSOLES[arch]},115200 {append}".strip() if kernel else append
        spec = Spec(name, arch, memory, cpus, kernel, initrd, line, tuple(cards), disks, firmware, accel)
        switches = {segment.name: segment.switch for segment in segments}
        vm = VM(spec, switches, directory, factor=self._factor)
        self.machines[name] = vm
        return vm

    def address(self, vm: VM, segment: Segment) -> IPv4Address:
        """The address a machine has, or will get, on a segment."""
        return segment.dhcp.lease_of(bytes.fromhex(self._mac(segment, vm.name).replace(":", "")))

    def _mac(self, segment: Segment, name: str) -> str:
        digest = hashlib.sha256(f"{segment.name}/{name}".encode()).digest()
        return ":".join(f"{byte:02x}" for byte in (0x52, 0x54, 0x00, *digest[:3]))

    def close(self) -> None:
        """Switch everything off and remove every trace; what fails does not keep the rest from it.

        Raises:
            BaseException: the first thing that failed.
        """
        steps: list[Callable[[], None]] = [vm.stop for vm in self.machines.values()]
        steps += [segment.switch.close for segment in self.segments.values()]
        steps.append(lambda: shutil.rmtree(self.directory, ignore_errors=True))
        self.segments = {}
        first: BaseException | None = None
        for step in steps:
            try:
                step()
            except BaseException as error:
                first = first or error
        if first is not None:
            raise first

    def __enter__(self) -> "Lab":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sweep(base: Path) -> None:
    """Remove the directories of labs whose process is gone: nobody could clean up after a SIGKILL.

    Args:
        base: where labs keep their directories.
    """
    for path in base.glob(f"{_PREFIX}-*-*-*"):
        owner = _OWNED.fullmatch(path.name)
        # Numbers are given again, so a process is known by when it started too.
        if owner and path.stat().st_uid == os.geteuid() and _started(int(owner[1])) != owner[2]:
            shutil.rmtree(path, ignore_errors=True)


def _started(pid: int) -> str:
    """When a process started, in ticks since the host did; empty when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    # The name in parentheses may hold anything; the 22nd field is the 20th after it (proc(5)).
    return stat.rpartition(")")[2].split()[19]


def _check(name: str, taken: dict[str, VM] | dict[str, Segment]) -> None:
    if not _NAME.fullmatch(name):
        raise MisuseError(f"{name!r} is no name here: letters, digits and -, 24 at most")
    if name in taken:
        raise MisuseError(f"there is a {name} already")


def _factor() -> float:
    text = os.environ.get("LAB_TIMEOUT_FACTOR", "1")
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 0.1 <= factor <= 100:
        raise MisuseError(f"LAB_TIMEOUT_FACTOR is {text!r}; it is a number from 0.1 to 100")
    return factor
