"""What the loop's scenarios do and check, in words."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from lab.board.description import Description
from lab.machine import Machine
from lab.marks import Mark
from lab.net.hostport import refusal
from lab.net.segment import Segment
from lab.plugin import Record
from lab.qemu.command import Disk, Firmware
from lab.qemu.vm import VM
from lab.topology import Lab
from phase import cmdline
from phase.identity import Identity
from phase.jobs import receipt as receipts
from phase.jobs.errors import ReceiptError
from phase.trust import Floor
from scenarios.images import CHANNEL, SIGNED_CMDLINE, Release
from scenarios.serving import serving

#: Which phase starts which kernel (docs/develop/design.md, "Formats").
KERNELS = {"kernel": "firmware", "kernel2": "handoff"}
#: The timeline of one boot.
STEPS = (
    "kernel", "init", "network", "discover", "trust", "fetch", "verify", "load", "handoff",
    "kernel2", "init2", "rootfs", "system", "job",
)  # fmt: skip
MEMORY = 512
PORT = 8080


class Loop:
    """Two machines on a segment: one serves, the other boots from it; a board, if there is one."""

    def __init__(
        self,
        lab: Lab,
        record: Record,
        release: Release,
        arch: str,
        work: Path,
        board: Description | None = None,
    ) -> None:
        self.lab = lab
        self.record = record
        self.release = release
        self.arch = arch
        self.work = work
        self.board = board
        self.lan = lab.segment("lan")

    def serve(
        self,
        extra: str = "",
        *,
        arch: str = "",
        release: Release | None = None,
        flip: str = "",
        staged: bool = False,
        name: str = "server",
    ) -> VM:
        """Start a system that serves, and wait until it does.

        Args:
            extra: words for its command line.
            arch: its architecture, when it is not that of the machine under test.
            release: what it serves; the session's when left out.
            flip: SHA-256 of a blob to serve with one bit wrong.
            name: of the machine.
            staged: whether it may be one that was frozen when it served; the same session's, that is.
        """
        arch = arch or self.arch
        running = f"phase.channel={CHANNEL} {extra}".strip()
        serves = (arch,) if arch == self.arch else (arch, self.arch)
        kernel, initrd, line = (release or self.release).system(
            arch, self.work, running, serves=serves, flip=flip
        )
        server = self.lab.vm(
            name,
            arch=arch,
            memory=MEMORY if arch == self.arch else 768,
            kernel=kernel,
            initrd=initrd,
            append=line,
            segments=(self.lan,),
        )
        if staged:
            self.lab.stage("serving", server, until=serves_health).start()
        else:
            server.start()
            serves_health(server)
        return server

    @contextlib.contextmanager
    def provided(self, release: Release | None = None, *, name: str = "provider") -> Iterator[None]:
        """A provider of a release, where it matters what it serves, and not that it has booted.

        It is a program of this host on the segment; where the host allows no such card, a machine.

        Args:
            release: what it serves; the session's when left out.
            name: of the port, or of the machine.
        """
        release = release or self.release
        if refusal():
            server = self.serve(release=release, name=name)
            yield
            server.stop()
            return
        port = self.lab.host_ports.get(name) or self.lab.host_port(name, self.lan)
        with serving(release.directory, "--port", str(PORT), port=port):
            yield

    def boot(self, extra: str = "") -> Machine:
        """Switch on a seed that knows its channel, and what `extra` tells it: the board, or else a VM.

        Args:
            extra: words for its command line.
        """
        if self.board is None:
            return self.boot_vm(extra)
        kernel, initrd = self.release.seed(self.arch, self.work)
        client = self.lab.board(
            "client", self.board, kernel=kernel, initrd=initrd, append=_line(extra), segment=self.lan
        )
        client.start()
        return client

    def boot_vm(
        self,
        extra: str = "",
        *,
        memory: int = MEMORY,
        name: str = "client",
        disks: tuple[Disk, ...] = (),
        offline: bool = False,
        grace: Mapping[str, int] | None = None,
        floor: Floor | None = None,
        torrc: str = "",
        firmware: Firmware | None = None,
        on: bool = True,
        reboots: bool = False,
        tpm: bool = False,
        segments: tuple[Segment, ...] = (),
    ) -> VM:
        """The same, where it has to be a VM.

        Args:
            extra: words for its command line.
            memory: MiB.
            name: of the machine.
            disks: it has.
            offline: whether its image lets it boot what it has kept.
            grace: mode to seconds for which its image takes expired timestamps and snapshots.
            floor: versions below which its image trusts nothing.
            torrc: configuration of the Tor in its image; there is none where this is left out.
            firmware: UEFI; QEMU's own when left out.
            on: whether to switch it on.
            reboots: whether it starts anew after a reset; otherwise that switches it off.
            tpm: whether it has a TPM.
            segments: a network card on each; one on the loop's own when left out.
        """
        kernel, initrd = self.release.seed(
            self.arch, self.work, offline=offline, grace=grace, floor=floor, torrc=torrc
        )
        client = self.lab.vm(
            name,
            arch=self.arch,
            memory=memory,
            kernel=kernel,
            initrd=initrd,
            append=_line(extra),
            disks=disks,
            firmware=firmware,
            segments=segments or (self.lan,),
            reboots=reboots,
            tpm=tpm,
        )
        if on:
            client.start()
        return client

    def address(self, vm: VM) -> str:
        """A machine's address on the segment."""
        return str(self.lab.address(vm, self.lan))

    def reaches_job(self, client: Machine) -> None:
        """The machine goes the whole way, in order, once."""
        client.wait_mark("handoff", timeout=120)
        client.wait_mark("job", timeout=120)
        steps = [mark.step for mark in client.marks]
        assert steps == list(STEPS), steps

    def handed_over(self, client: Machine, running: str | None = None) -> None:
        """Another kernel runs, on the signed command line and the carried words, and nothing else.

        Args:
            client: the machine, which has run its job.
            running: its seed's command line, where a medium has that; the machine's own when left out.
        """
        before, after = mark(client, "kernel"), mark(client, "kernel2")
        assert before.facts["boot_id"] != after.facts["boot_id"]
        shell = client.shell()
        assert shell.succeed("cat /proc/sys/kernel/random/boot_id") == after.facts["boot_id"]
        line = shell.succeed("cat /proc/cmdline")
        rootfs = self.release.repository.manifest(CHANNEL, self.arch).artifacts["rootfs"].sha256
        assert line == cmdline.compose(SIGNED_CMDLINE, running or client.append, rootfs=rootfs)
        words = cmdline.split(line)
        assert f"phase.channel={CHANNEL}" in words
        assert any(word.startswith("console=") for word in words)
        assert "phase.console=shell" in words, "the signed words are not there"

    def predicted(self, running: str) -> str:
        """What a TPM's register has to hold after a boot of the release (`phase release predict`), hex.

        Args:
            running: the seed's command line.
        """
        argv: list[str | Path] = [sys.executable, "-m", "phase", "release", "predict"]
        argv += [self.release.directory, CHANNEL, self.arch, "--running", running, "--json"]
        done = subprocess.run(argv, check=True, capture_output=True)
        return str(json.loads(done.stdout)["value"])

    def receipt_holds(self, client: Machine) -> None:
        """The receipt verifies here, against the key of that node, for that job and that output."""
        job = mark(client, "job")
        assert job.facts["stdout"] == "dlroW ,olleH"
        shell = client.shell()
        envelope = shell.succeed(f"cat {job.facts['receipt']}").encode()
        receipt = receipts.verify(
            envelope, key=str(job.facts["node"]), job_id=str(job.facts["job_id"]), stdout=b"dlroW ,olleH"
        )
        assert receipt is not None
        with pytest.raises(ReceiptError):
            receipts.verify(envelope, key=Identity.ephemeral().public_key)

    def refuses(self, client: Machine, *, step: str) -> Mark:
        """The machine refuses at a step, says why, and gives up."""
        refused = client.wait_mark(step, outcome="refused", timeout=120)
        self.gives_up(client)
        return refused

    def gives_up(self, client: Machine) -> None:
        """The machine tries no more."""
        client.console.wait(
            lambda: next((found for found in client.marks if found.facts.get("final")), None),
            "mark that is its last",
            timeout=120,
        )

    def never_handed_over(self, client: Machine) -> None:
        """It is still the first kernel, and no other was ever loaded."""
        shell = client.shell()
        assert (
            shell.succeed("cat /proc/sys/kernel/random/boot_id") == mark(client, "kernel").facts["boot_id"]
        )
        assert shell.succeed("cat /sys/kernel/kexec_loaded") == "0"
        assert not {"load", "handoff", "kernel2"} & {m.step for m in client.marks if m.outcome == "ok"}
        assert [found.step for found in client.marks].count("kernel") == 1
        assert "Linux version" in shell.succeed("dmesg | head -3")

    def report(self, scenario: str, client: Machine) -> None:
        """Tell the report what this was."""
        machines = ", ".join(f"{vm.name} {vm.arch}" for vm in self.lab.machines.values())
        self.record(
            scenario=scenario,
            arch=self.arch,
            topology=machines,
            phases=client.timeline(KERNELS),
            power_on=client.power_on,
            kernel=next(str(found.facts["kernel"]) for found in client.marks if found.step in KERNELS),
            accel=client.facts["accel"],
            firmware=client.facts["firmware"],
            # Only a seed has a mode: a system that was started without one names none.
            mode=next((str(found.facts["mode"]) for found in client.marks if found.step == "init"), ""),
        )


def _line(extra: str) -> str:
    return f"quiet panic=-1 phase.channel={CHANNEL} phase.job=hello phase.rescue=shell {extra}".rstrip()


def serves_health(server: Machine) -> None:
    """Wait until a system has booted and its provider answers."""
    server.wait_mark("system", timeout=60)
    # The machine asks itself: each command by its console takes processor time from what is to answer.
    asked = f"wget -q -O /dev/null http://127.0.0.1:{PORT}/health 2>/dev/null"
    server.shell().wait_until_succeeds(
        f"n=0; until {asked} || [ $((n += 1)) -gt 20 ]; do sleep 0.5; done; [ $n -le 20 ]", timeout=90
    )


def mark(vm: Machine, step: str) -> Mark:
    """The first mark of a step."""
    return next(found for found in vm.marks if found.step == step)


def last(vm: Machine, step: str) -> Mark:
    """The last mark of a step."""
    return next(found for found in reversed(vm.marks) if found.step == step)
