"""A topology: machines and the segments they are plugged into, and one place that takes it all down."""

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Literal

from lab import host, stages
from lab.board.board import Board
from lab.board.description import Description
from lab.console import Console
from lab.errors import InfrastructureError, MisuseError
from lab.graph import Node
from lab.machine import Machine
from lab.net.firewall import Rule
from lab.net.hostport import HostPort
from lab.net.nat import Nat
from lab.net.router import Router
from lab.net.segment import Segment
from lab.qemu.command import CONSOLES, Card, Disk, Firmware, Spec
from lab.qemu.vm import VM
from lab.stages import Kept, Stage, Wire

#: Names become files and sockets; a socket's path has 107 bytes at most.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,23}")
_LONGEST_DIRECTORY = 70
_PREFIX = "lab"
#: The DHCP option that says where the way out is (RFC 2132, 3.5).
_ROUTER = 3
_OWNED = re.compile(rf"{_PREFIX}-(\d+)-(\d+)-\w+")


class Lab:
    """Makes segments and machines, and takes down what it made.

    Args:
        factor: timeouts are multiplied by this; measured when left out (`lab.host.factor`).
        seed: what the chances of every cable's faults come from.
        memory: MiB that its VMs may have together while they are on; any when left out.

    Attributes:
        machines: by name.
        segments: by name.
        routers: by name.
        host_ports: by name.
        directory: everything of this lab on disk; gone when it closes.
        seed: as given; a failure that another run shall repeat names it.
    """

    def __init__(self, *, factor: float | None = None, seed: int = 0, memory: int | None = None) -> None:
        base = Path(tempfile.gettempdir())
        sweep(base)
        owner = f"{os.getpid()}-{_started(os.getpid())}"
        self.machines: dict[str, Machine] = {}
        self.segments: dict[str, Segment] = {}
        self.routers: dict[str, Router] = {}
        self.host_ports: dict[str, HostPort] = {}
        self.seed = seed
        self._memory = memory
        self._held: list[Kept] = []
        self._factor = host.factor() if factor is None else factor
        self.directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}-{owner}-", dir=base))
        if len(os.fsencode(self.directory)) > _LONGEST_DIRECTORY:
            self.directory.rmdir()
            raise InfrastructureError(f"{base} is too long for sockets below it; set TMPDIR to a short path")

    def segment(self, name: str) -> Segment:
        """A new segment.

        Raises:
            MisuseError: the name is taken, or cannot be a name.
        """
        _check(name, self.segments)
        self.segments[name] = Segment(name, self.directory, len(self.segments), seed=self.seed)
        return self.segments[name]

    def router(
        self,
        name: str,
        *segments: Segment,
        nat: Nat | None = None,
        rules: Sequence[Rule] = (),
        routes: Mapping[IPv4Network, IPv4Address] | None = None,
    ) -> Router:
        """A new router, switched on. Machines that ask for an address from now on learn of it.

        Args:
            name: unique in this lab.
            segments: what it connects; with NAT, the last one is outside.
            nat: how it translates what leaves to the outside; None: it only forwards.
            rules: of its firewall; the first that matches counts, without one a datagram passes.
            routes: networks behind other routers, and the addresses of those routers.

        Raises:
            MisuseError: a router cannot be made so.
        """
        _check(name, self.routers)
        if len(set(segments)) < 2 or len(set(segments)) < len(segments):
            raise MisuseError(f"{name}: a router connects two different segments or more")
        for via in (routes or {}).values():
            if not any(via in segment.network for segment in segments):
                raise MisuseError(f"{name}: {via} is not on one of its segments")
        router = Router(name, nat=nat, rules=tuple(rules), routes=routes)
        for segment in segments:
            address = segment.join(name, router, bytes.fromhex(self._mac(segment, name).replace(":", "")))
            if nat is None or segment is not segments[-1]:
                segment.dhcp.options.setdefault(_ROUTER, address.packed)
        self.routers[name] = router
        return router

    def host_port(self, name: str, segment: Segment) -> HostPort:
        """A card on a segment for programs of this host: `port.run("curl", url)`.

        Args:
            name: unique in this lab.
            segment: where it is plugged in; its DHCP server's way out becomes the card's.

        Raises:
            InfrastructureError: this host does not allow it; `lab.net.hostport.refusal` tells beforehand.
            MisuseError: the name is taken, or cannot be a name.
        """
        _check(name, self.host_ports)
        mac = bytes.fromhex(self._mac(segment, name).replace(":", ""))
        port = segment.host_port(name, mac, factor=self._factor)
        self.host_ports[name] = port
        return port

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
        accel: str = "auto",
        display: bool = False,
        seed: int | None = None,
        option_rom: bool = False,
        port: bool = False,
        cpu: str = "",
        reboots: bool = False,
        tpm: bool = False,
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
            accel: `tcg`, `kvm` or `hvf`; by itself, the fastest that has been seen to work here.
            display: give it a screen, for `VM.screen`.
            seed: makes it deterministic: its time counts instructions, its chance follows this number. Two
                boots print the same lines at the same hundredths of a second, as long as nothing from
                outside reaches it, neither frames nor keys.
            option_rom: its network cards carry iPXE, and it boots from the first of them.
            port: give it a virtio port too, for `VM.shell(over="port")`.
            cpu: processor model, as `qemu-system-x86_64 -cpu help` lists them; by itself, the best there is.
            reboots: let it start anew when it asks for a reset, which otherwise switches it off. Its console
                goes on; a fourth kernel is a reboot loop.
            tpm: give it a TPM 2.0, which keeps what it keeps until the lab ends.

        Raises:
            MisuseError: a machine cannot be made so.
        """
        if arch not in CONSOLES:
            raise MisuseError(
                f"{arch!r} is not an architecture of the lab; there are: {', '.join(CONSOLES)}"
            )
        _check(name, self.machines)
        _check_parts(
            name, paths=(kernel, initrd), counts={"memory": memory, "cpus": cpus}, words=(append, cpu)
        )
        _check_kind(name, "segments", segments, Segment, "what lab.segment() makes")
        _check_kind(name, "disks", disks, Disk, "lab.qemu.command.Disk")
        for segment in segments:
            if self.segments.get(segment.name) is not segment:
                raise MisuseError(f"{name}: the segment {segment.name} is not of this lab")
        missing = [
            path for path in (kernel, initrd, *(disk.path for disk in disks)) if path and not path.exists()
        ]
        if missing:
            raise MisuseError(f"{name}: there is no {missing[0]}")
        if accel == "auto":
            accel = "tcg" if seed is not None else host.accelerator(arch)
        line = f"console={CONSOLES[arch]},115200 {append}".strip() if kernel else append
        spec = Spec(
            name, arch, memory, cpus, kernel, initrd, line, (), disks, firmware, accel, display, seed,
            option_rom=option_rom, port=port, cpu=cpu, reboots=reboots, tpm=tpm,
        )  # fmt: skip
        return self._add(spec, segments)

    def board(
        self,
        name: str,
        described: Description,
        *,
        kernel: Path,
        initrd: Path,
        append: str = "",
        segment: Segment | None = None,
    ) -> Board:
        """A board, switched off.

        Args:
            name: unique in this lab.
            described: what its file says (`lab.board.description.read`).
            kernel: for its medium.
            initrd: for its medium.
            append: words for its command line; the console and the file's own are added.
            segment: where its cable goes, if its file says that it has one.

        Raises:
            MisuseError: the name is taken, or cannot be a name.
        """
        _check(name, self.machines)
        directory = self.directory / f"vm-{name}"
        directory.mkdir()
        plugged = segment if described.network else None
        made = Board(
            name,
            described,
            kernel=kernel,
            initrd=initrd,
            append=append,
            directory=directory,
            port=plugged.switch.attach(name) if plugged else None,
            segment=plugged.name if plugged else "",
            factor=self._factor,
            elsewhere=self.check,
        )
        self.machines[name] = made
        return made

    def like(self, vm: VM, name: str) -> VM:
        """Another machine made of the same, on the same segments; switched off.

        Args:
            vm: of this lab.
            name: the new one's.

        Raises:
            MisuseError: the name is taken, or cannot be a name.
        """
        _check(name, self.machines)
        return self._add(vm.spec._replace(name=name), tuple(self.segments[here] for here in vm.segments))

    def _add(self, spec: Spec, segments: tuple[Segment, ...]) -> VM:
        directory = self.directory / f"vm-{spec.name}"
        directory.mkdir()
        if spec.firmware:
            # Its own variables: it writes them, and keeps them from one start to the next.
            variables = Path(shutil.copyfile(spec.firmware.variables, directory / "variables.fd"))
            spec = spec._replace(firmware=spec.firmware._replace(variables=variables))
        cards = []
        for segment in segments:
            port = segment.switch.attach(spec.name)
            cards.append(Card(self._mac(segment, spec.name), port.machine_socket, port.switch_socket))
        switches = {segment.name: segment.switch for segment in segments}
        vm = VM(
            spec._replace(cards=tuple(cards)),
            switches,
            directory,
            factor=self._factor,
            elsewhere=self.check,
            admit=self._admit,
        )
        self.machines[spec.name] = vm
        return vm

    def _admit(self, vm: VM) -> None:
        """Hold a scenario to its lease: what it takes beyond that, others were promised."""
        on = [other for other in self.machines.values() if isinstance(other, VM) and other.running]
        needed = sum(other.spec.memory for other in (*on, vm))
        if self._memory is not None and needed > self._memory:
            names = ", ".join(f"{other.name} {other.spec.memory}" for other in (*on, vm))
            raise MisuseError(
                f"its machines have {needed} MiB ({names}), its lease {self._memory}; "
                f"mark the scenario @pytest.mark.lab(memory={needed})"
            )

    def address(self, vm: VM, segment: Segment) -> IPv4Address:
        """The address a machine has, or will get, on a segment."""
        return segment.dhcp.lease_of(bytes.fromhex(self._mac(segment, vm.name).replace(":", "")))

    def _mac(self, segment: Segment, name: str) -> str:
        digest = hashlib.sha256(f"{segment.name}/{name}".encode()).digest()
        return ":".join(f"{byte:02x}" for byte in (0x52, 0x54, 0x00, *digest[:3]))

    def stage(
        self, name: str, *machines: VM, until: Callable[..., object], inputs: Sequence[object] = ()
    ) -> Stage:
        """Machines that have come to a point of their life, kept to be started from there.

        They are booted together the first time only; then they are off again. What they were made of, the
        addresses they have, what their segments' servers and the routers tell them, and the text of `until`
        with the functions and constants that it uses say whether it is the first time.

        Args:
            name: of that point, for people.
            machines: of this lab, all off.
            until: called with the machines when they are switched on; returns when they are there. Each
                then has a shell on its console.
            inputs: whatever else decides what they come to, anything whose `repr` tells it apart.

        Raises:
            MisuseError: they cannot be kept.
        """
        if not _NAME.fullmatch(name):
            raise MisuseError(f"{name!r} is not a name of a stage: letters, digits and -, 24 at most")
        kept = stages.take(
            name, machines, until, [*inputs, *self._around(machines)], [self.wires(vm) for vm in machines]
        )
        self._held.append(kept)
        return Stage(self, name, machines, kept)

    def _around(self, machines: Sequence[VM]) -> list[object]:
        """What machines learn from their segments while they boot: it is in their memory from then on."""
        names = sorted({name for vm in machines for name in vm.segments})
        servers = [(name, self.segments[name].dhcp) for name in names]
        told = [(name, sorted(dhcp.options.items()), dhcp.faults) for name, dhcp in servers]
        return [told, [router.made_of for router in self.routers.values()]]

    def wires(self, vm: VM) -> tuple[Wire, ...]:
        """How a machine is plugged in, card by card."""
        found = []
        for card, name in zip(vm.spec.cards, vm.segments, strict=True):
            segment = self.segments[name]
            address = IPv4Interface((self.address(vm, segment), segment.network.prefixlen))
            found.append(Wire(name, card.mac, address))
        return tuple(found)

    def check(self, besides: Console | None = None) -> None:
        """Raise what has ended a segment, or one of the machines if that has not been told yet.

        Args:
            besides: the console of a machine that is looked after otherwise.

        Raises:
            MachineDied: a machine died; it is named.
            InfrastructureError: a segment has ended, or the host took a machine away.
        """
        self.check_segments()
        for vm in list(self.machines.values()):
            if vm.power_on and vm.console is not besides:
                vm.console.check()

    def check_segments(self) -> None:
        """Raise `InfrastructureError` if a segment has ended."""
        for segment in list(self.segments.values()):
            segment.switch.check()

    def nodes(self) -> list[Node]:
        """Everything with a cable, for a picture of the topology."""
        found = [Node(vm.name, vm.arch, tuple(vm.segments)) for vm in self.machines.values()]
        for router in self.routers.values():
            kind: Literal["NAT", "router"] = "NAT" if router.translator else "router"
            found.append(Node(router.name, segments=tuple(router.interfaces), kind=kind))
        for name in self.host_ports:
            plugged = tuple(each.name for each in self.segments.values() if name in each.switch.nodes)
            found.append(Node(name, segments=plugged, kind="host port"))
        return found

    def close(self) -> None:
        """Switch everything off and remove every trace; what fails does not keep the rest from it.

        Raises:
            BaseException: the first thing that failed.
        """
        steps: list[Callable[[], None]] = [vm.stop for vm in self.machines.values()]
        steps += [kept.release for kept in self._held]
        steps += [port.close for port in self.host_ports.values()]
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
    """Remove the directories of labs whose process is gone: a SIGKILL leaves them behind.

    Args:
        base: where labs keep their directories.
    """
    for path in base.glob(f"{_PREFIX}-*-*-*"):
        owner = _OWNED.fullmatch(path.name)
        # Numbers are given again, so a process is known by its start time, too.
        with contextlib.suppress(FileNotFoundError):  # its own lab has just closed
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


def _check(name: str, taken: Mapping[str, object]) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise MisuseError(f"{name!r} cannot be a name here: letters, digits and -, 24 at most")
    if name in taken:
        raise MisuseError(f"there is a {name} already")


def _check_parts(
    name: str, *, paths: Sequence[object], counts: Mapping[str, object], words: Sequence[object]
) -> None:
    """What a type checker would have said, for who runs none."""
    for path in paths:
        if path is not None and not isinstance(path, Path):
            raise MisuseError(f"{name}: {path!r} is not a pathlib.Path")
    for what, count in counts.items():
        if not isinstance(count, int) or count < 1:
            raise MisuseError(f"{name}: {what}={count!r} is not a whole number above 0")
    for word in words:
        if not isinstance(word, str):
            raise MisuseError(f"{name}: {word!r} is not text")


def _check_kind(name: str, what: str, found: object, kind: type, takes: str) -> None:
    if isinstance(found, kind) or not isinstance(found, tuple | list):
        raise MisuseError(f"{name}: {what} takes a list, not {found!r}")
    for each in found:
        if not isinstance(each, kind):
            raise MisuseError(f"{name}: {what} takes {takes}, not {each!r}")
