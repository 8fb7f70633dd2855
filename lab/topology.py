"""A topology: machines and the segments they are plugged into, and one place that takes it all down."""

import hashlib
import os
import shutil
import tempfile
import time
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from lab.errors import MisuseError
from lab.net.dhcp import DhcpServer
from lab.net.switch import Switch
from lab.qemu.command import CONSOLES, Card, Spec
from lab.qemu.vm import VM

_PREFIX = "lab-"


class Segment:
    """An Ethernet segment with a DHCP server on it."""

    def __init__(self, name: str, directory: Path, number: int) -> None:
        self.name = name
        self.network = IPv4Network(f"10.77.{number}.0/24")
        self.switch = Switch(name, directory)
        self.dhcp = DhcpServer(self.network)
        self.switch.add_service(self.dhcp)

    def partition(self, vm: VM) -> None:
        """Let nothing pass to or from a machine, silently."""
        self.switch.ports[vm.name].partitioned = True

    def heal(self) -> None:
        """End every partition."""
        for port in self.switch.ports.values():
            port.partitioned = False


class Lab:
    """Makes segments and machines, and takes down what it made.

    Args:
        factor: timeouts are multiplied by this; `LAB_TIMEOUT_FACTOR` when left out.
    """

    def __init__(self, *, factor: float | None = None) -> None:
        sweep()
        self.directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        self.machines: dict[str, VM] = {}
        self.segments: dict[str, Segment] = {}
        self.started = time.monotonic()
        self._factor = factor or float(os.environ.get("LAB_TIMEOUT_FACTOR", "1"))

    def segment(self, name: str) -> Segment:
        """A new segment."""
        if name in self.segments:
            raise MisuseError(f"there is a segment {name} already")
        self.segments[name] = Segment(name, self.directory, len(self.segments))
        return self.segments[name]

    def vm(
        self,
        name: str,
        *,
        arch: str,
        kernel: Path,
        initrd: Path | None = None,
        append: str = "",
        memory: int = 512,
        cpus: int = 1,
        segments: tuple[Segment, ...] = (),
    ) -> VM:
        """A new virtual machine, switched off.

        Args:
            name: unique in this lab; letters, digits and `-`.
            arch: `x86_64` or `arm64`.
            kernel: what firmware starts.
            initrd: its initial RAM disk.
            append: its command line; the console is added.
            memory: MiB.
            cpus: virtual processors.
            segments: one network card each.
        """
        if arch not in CONSOLES:
            raise MisuseError(f"no machine of architecture {arch!r}; known: {', '.join(CONSOLES)}")
        if name in self.machines or not name.replace("-", "").isalnum():
            raise MisuseError(f"{name!r} is taken or no name for a machine")
        directory = self.directory / name
        directory.mkdir()
        cards = []
        for segment in segments:
            port = segment.switch.attach(name)
            cards.append(Card(self._mac(segment, name), port.there, port.here))
        line = f"console={CONSOLES[arch]},115200 {append}".strip()
        spec = Spec(name, arch, memory, cpus, kernel, initrd, line, tuple(cards))
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
        """Switch everything off and remove every trace."""
        for vm in self.machines.values():
            vm.stop()
        for segment in self.segments.values():
            segment.switch.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> "Lab":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sweep() -> None:
    """Remove the directories of labs whose process is gone: nobody could clean up after a SIGKILL."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        owner = path.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(path, ignore_errors=True)
