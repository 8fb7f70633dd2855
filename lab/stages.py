"""Stages: machines frozen at a point of their life, and clones started from there.

A stage is a directory of the user's cache: the memory of each machine, the state of its devices, and
`stage.json`. Clones map the memory privately, so any number of them share what none has changed.

A clone has not booted, and its record says so.
"""

import contextlib
import fcntl
import functools
import hashlib
import inspect
import json
import logging
import os
import shutil
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Interface
from pathlib import Path
from types import CodeType
from typing import NamedTuple, Protocol, TextIO

from lab import agent, dialogue, shell
from lab.clean import cache_directory
from lab.errors import InfrastructureError, MisuseError
from lab.net.switch import Port
from lab.qemu import command, migration, newborn
from lab.qemu.vm import VM
from lab.shell import Suspended

#: Bytes on disk that all stages may have together; those used least recently go.
LIMIT = 4 << 30
_TOLD = "stage.json"
_log = logging.getLogger("lab")


class Wire(NamedTuple):
    """How a network card is plugged in: its segment's name, its hardware address, its address there."""

    segment: str
    mac: str
    address: IPv4Interface


class Topology(Protocol):
    """What a stage asks of the lab that its machines are in; `lab.topology.Lab` is one."""

    def like(self, vm: VM, name: str) -> VM:
        """Another machine made of the same."""

    def wires(self, vm: VM) -> tuple[Wire, ...]:
        """How a machine is plugged in."""


class Kept(NamedTuple):
    """A stage on disk, which stays while this process holds it.

    Attributes:
        directory: where it is.
        seconds: from power-on until its machines had come to it, when it was made.
        waits: what each machine's shell was frozen in.
        lock: its lock, held.
    """

    directory: Path
    seconds: float
    waits: dict[str, Suspended]
    lock: TextIO

    def files(self, machine: str) -> tuple[Path, Path]:
        """A machine's memory and its devices' state."""
        return self.directory / f"{machine}.memory", self.directory / f"{machine}.state"

    def release(self) -> None:
        """Let others remove it."""
        self.lock.close()


class Stage:
    """Machines of a lab at a point of their life; `Lab.stage` makes it.

    Attributes:
        name: of that point.
        machines: those that were frozen there.
        seconds: from power-on until they had come to it, when the stage was made.
    """

    def __init__(self, lab: Topology, name: str, machines: Sequence[VM], kept: Kept) -> None:
        self.name = name
        self.machines = tuple(machines)
        self.seconds = kept.seconds
        self._lab = lab
        self._kept = kept

    def start(self) -> tuple[VM, ...]:
        """Switch the machines themselves on, at this point, with the names and addresses they have.

        Entropy and time are new; what they had open among each other is still open.

        Raises:
            MisuseError: one of them is on.
            InfrastructureError: QEMU does not take the stage.
        """
        self._resume([(vm, vm) for vm in self.machines])
        return self.machines

    def clone(self, name: str) -> VM:
        """Start another machine like the only one of this stage, next to it.

        Args:
            name: its name and host name; hardware and IP addresses follow from it.

        Raises:
            MisuseError: the stage has several machines, or the name is taken.
            InfrastructureError: QEMU does not take the stage.
        """
        if len(self.machines) != 1:
            raise MisuseError(f"the stage {self.name} has several machines: clones() starts them together")
        (original,) = self.machines
        clone = self._lab.like(original, name)
        self._resume([(original, clone)])
        return clone

    def clones(self, name: str) -> tuple[VM, ...]:
        """Start another machine like each of this stage; they are called `name-original`."""
        pairs = [(vm, self._lab.like(vm, f"{name}-{vm.name}")) for vm in self.machines]
        self._resume(pairs)
        return tuple(clone for _, clone in pairs)

    def _resume(self, pairs: Sequence[tuple[VM, VM]]) -> None:
        with contextlib.ExitStack() as undo:
            # Not a frame of theirs passes before each is a machine of its own, nor one that was on its way
            # to whom it had been before.
            cables = [(switch, switch.ports[vm.name]) for _, vm in pairs for switch in vm.segments.values()]
            healed = undo.enter_context(contextlib.ExitStack())
            for switch, port in cables:
                healed.enter_context(_cut(port))
                switch.forget(port)
            for original, vm in pairs:
                memory, state = self._kept.files(original.name)
                vm.resume(self.name, memory, state)
                undo.callback(vm.stop)
            for _, vm in pairs:
                vm.go_on()
            for original, vm in pairs:
                plugs = [
                    newborn.Plug(had.mac, has.mac, had.address, has.address)
                    for had, has in zip(self._lab.wires(original), self._lab.wires(vm), strict=True)
                ]
                vm.wake(self._kept.waits[original.name], newborn.wake(vm.name, time.time(), plugs))
            healed.close()
            undo.pop_all()


@contextlib.contextmanager
def _cut(port: Port) -> Iterator[None]:
    """A cable through which nothing passes meanwhile; each direction has its own faults afterwards."""
    before = port.to_machine, port.from_machine
    port.partitioned = True
    try:
        yield
    finally:
        port.to_machine, port.from_machine = before


def take(
    name: str,
    machines: Sequence[VM],
    until: Callable[..., object],
    inputs: Sequence[object],
    wires: Sequence[Sequence[Wire]],
) -> Kept:
    """Find a stage in the cache, or make it. See `lab.topology.Lab.stage`."""
    if not machines:
        raise MisuseError(f"a stage {name} without a machine")
    for vm in machines:
        if vm.running:
            raise MisuseError(f"{vm.name} is running: a stage starts its machines itself")
        if any(disk.access != "read-only" for disk in vm.spec.disks) or vm.spec.firmware:
            raise MisuseError(f"{vm.name} writes to a disk or to its firmware; a stage keeps memory only")
        if vm.spec.tpm:
            raise MisuseError(f"{vm.name} has a TPM, whose state no stage keeps")
    facts: list[object] = [name, _source(until), [repr(value) for value in inputs]]
    facts += [
        [made_of(vm.spec), [str(wire) for wire in plugged]]
        for vm, plugged in zip(machines, wires, strict=True)
    ]
    digest = hashlib.sha256(json.dumps([facts, _lab_code()]).encode()).hexdigest()[:16]
    base = cache_directory() / "stages"
    base.mkdir(parents=True, exist_ok=True)
    final = base / f"{name}-{digest}"
    lock = (base / f"{final.name}.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        if not (final / _TOLD).exists():
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (final / _TOLD).exists():
                _make(final, machines, until)
            fcntl.flock(lock, fcntl.LOCK_SH)
            shrink(base, LIMIT)
        os.utime(final / _TOLD)
        told = json.loads((final / _TOLD).read_text())
        waits = {machine: Suspended(*words) for machine, words in told["waits"].items()}
        return Kept(final, told["seconds"], waits, lock)
    except BaseException:
        lock.close()
        raise


def _make(final: Path, machines: Sequence[VM], until: Callable[..., object]) -> None:
    for stale in final.parent.glob(f".{final.name}.*"):
        shutil.rmtree(stale, ignore_errors=True)
    building = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        begun = time.monotonic()
        names = ", ".join(f"{vm.name} {vm.arch}" for vm in machines)
        _log.info("making stage %s of %s", final.name, names)
        for vm in machines:
            vm.record(building / f"{vm.name}.memory")
        until(*machines)
        shells = [vm.shell() for vm in machines]
        seconds = time.monotonic() - begun
        waits = {
            vm.name: shell.suspend(newborn.wait(vm.arch)) for vm, shell in zip(machines, shells, strict=True)
        }
        # All stand still before the first is kept: none sees another gone.
        for vm in machines:
            vm.qmp("stop")
        for vm in machines:
            vm.freeze(building / f"{vm.name}.state")
        for vm in machines:
            vm.stop()
            # Another time the stage is there already: of no scenario is this a boot.
            vm.power_on = 0.0
        (building / _TOLD).write_text(json.dumps({"seconds": round(seconds, 3), "waits": waits}) + "\n")
        shutil.rmtree(final, ignore_errors=True)
        building.rename(final)
        _log.info("stage %s made in %.0f s", final.name, time.monotonic() - begun)
    except BaseException:
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, building, ignore_errors=True)
            for vm in machines:
                stack.callback(vm.stop)
        raise


def made_of(spec: command.Spec) -> list[str]:
    """What decides a machine's memory: QEMU, its command line with contents in place of paths."""
    cards = tuple(
        command.Card(card.mac, Path(f"here{n}"), Path(f"there{n}")) for n, card in enumerate(spec.cards)
    )
    disks = tuple(disk._replace(path=Path(_digest(disk.path))) for disk in spec.disks)
    plain = spec._replace(
        kernel=Path(_digest(spec.kernel)) if spec.kernel else None,
        initrd=Path(_digest(spec.initrd)) if spec.initrd else None,
        cards=cards,
        disks=disks,
    )
    words = command.argv(plain, console=Path("console"), qmp=Path("qmp"))
    return [_qemu(words[0]), *words]


def shrink(base: Path, limit: int) -> list[Path]:
    """Remove stages, those used least recently first, until they fit; none that somebody holds.

    Args:
        base: where they are.
        limit: bytes on disk.

    Returns:
        What is gone.
    """
    found = []
    for told in base.glob(f"*/{_TOLD}"):
        with contextlib.suppress(FileNotFoundError):  # another runner removes it, or makes it anew
            found.append((told.stat().st_mtime, told.parent, _size(told.parent)))
    sizes = {directory: size for _, directory, size in sorted(found)}
    gone: list[Path] = []
    for directory, size in sizes.items():
        if sum(sizes.values()) - sum(sizes[path] for path in gone) <= limit:
            break
        with _free(base / f"{directory.name}.lock") as free:
            if free and size:
                shutil.rmtree(directory, ignore_errors=True)
                gone.append(directory)
    return gone


@contextlib.contextmanager
def _free(lock: Path) -> Iterator[bool]:
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _size(directory: Path) -> int:
    # Blocks, not lengths: memory that was never written is a hole.
    return sum(path.stat().st_blocks * 512 for path in directory.iterdir())


def _source(function: Callable[..., object], seen: frozenset[object] = frozenset()) -> str:
    """A function's text, what it was given besides its arguments, and what of its module it uses."""
    try:
        given = [*(getattr(function, "__defaults__", None) or ())]
        given += [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
        bound = [_source(value) if inspect.isfunction(value) else repr(value) for value in given]
        text = [inspect.getsource(function), *bound]
    except (OSError, TypeError) as error:
        raise MisuseError(f"{function!r} has no source; write a function, or a lambda in a file") from error
    seen |= {function}
    for name, value in sorted(_used(function).items()):
        if inspect.isfunction(value) and value not in seen and _ours(value):
            text.append(_source(value, seen))
        elif _plain(value):
            text.append(f"{name} = {value!r}")
    return "\n".join(text)


def _used(function: Callable[..., object]) -> dict[str, object]:
    """What a function, and those within it, call by the name it has in their module."""
    found: dict[str, object] = {}
    codes: list[object] = [getattr(function, "__code__", None)]
    around = getattr(function, "__globals__", {})
    while codes:
        code = codes.pop()
        if isinstance(code, CodeType):
            found |= {name: around[name] for name in code.co_names if name in around}
            codes += code.co_consts
    return found


def _ours(function: Callable[..., object]) -> bool:
    """Whether its text may change from one run to the next: not that of an installed package."""
    file = Path(function.__code__.co_filename)
    return not any(Path(sysconfig.get_path(name)) in file.parents for name in ("stdlib", "purelib"))


def _plain(value: object) -> bool:
    """Whether its `repr` says all of it, and the same every time."""
    if isinstance(value, tuple | list):
        return all(_plain(part) for part in value)
    if isinstance(value, dict):
        return all(_plain(part) for entry in value.items() for part in entry)
    return value is None or isinstance(value, str | bytes | int | float)


@functools.cache
def _lab_code() -> str:
    modules = agent, command, dialogue, migration, newborn, shell
    sources = [Path(module.__file__ or "") for module in modules] + [
        Path(inspect.getfile(VM)),
        Path(__file__),
    ]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def _digest(path: Path) -> str:
    found = path.stat()
    return _digest_of(path, found.st_ino, found.st_mtime_ns, found.st_size)


@functools.cache
def _digest_of(path: Path, *_: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.cache
def _qemu(program: str) -> str:
    try:
        return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise InfrastructureError(f"{program} does not run; `python3 -m lab doctor` says how") from error
