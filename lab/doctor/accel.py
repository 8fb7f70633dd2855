"""Whether KVM (on macOS: HVF) can be used on this host: a ladder of probes that ends in a booted kernel.

Each rung can fail although every one below it holds, and only the last proves anything; the answer names the
rung that broke.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lab.clean import cache_directory
from lab.doctor.kvm import DEVICE

#: Seconds: a sound host needs a tenth for the first, two for the second.
_CPU_DEADLINE, _KERNEL_DEADLINE = 10, 30
#: A kernel without a root file system says this on its way out, whatever its version.
_BOOTED = b"Kernel panic - not syncing: VFS"
_REMEDIES = {
    "is there": "Load the kvm module, or turn on virtualisation in the firmware or the outer hypervisor.",
    "opens": "Add yourself to the group kvm: `sudo usermod -aG kvm $USER`, then log in again.",
    "creates a VM": "Another hypervisor may hold the CPU. Stop it, or go without: the lab works, slower.",
    "runs a CPU": "The outer hypervisor emulates instead of nesting. Ask for real nested virtualisation.",
    "boots a kernel": "QEMU and this host's KVM do not get along. The lab works without, slower.",
    "is offered": "This Mac's CPU, or the hypervisor around it, has no Hypervisor.framework.",
}
_SYSTEM = {
    "x86_64": ("qemu-system-x86_64", "q35", "ttyS0"),
    "aarch64": ("qemu-system-aarch64", "virt", "ttyAMA0"),
}
#: What macOS calls it.
_SYSTEM["arm64"] = _SYSTEM["aarch64"]


class Rung(NamedTuple):
    """One probe: its name, whether it held, and what was seen."""

    name: str
    ok: bool
    detail: str


class Ladder(NamedTuple):
    """How far this host got.

    Attributes:
        accel: `kvm` or `hvf` when every rung held, else `tcg`.
        rungs: in order; the last is the one that broke, if one did.
        remedy: what to do about it; empty when nothing broke.
        final: whether asking again would give the same; false when there was no kernel to try with.
    """

    accel: str
    rungs: tuple[Rung, ...]
    remedy: str
    final: bool = True


def climb(kernels: Sequence[Path] | None = None) -> Ladder:
    """Tries KVM, or HVF on macOS, rung by rung.

    Args:
        kernels: candidates for the last rung; those of the image cache and of this host when None.

    Returns:
        How far it got. Without any kernel to boot the answer is `tcg`: nothing was proven.
    """
    accel = "hvf" if platform.system() == "Darwin" else "kvm"
    if accel == "hvf":
        rungs = [_framework()]
    elif Path(DEVICE).exists():
        rungs = [Rung("is there", ok=True, detail=DEVICE), *_cpu()]
    else:
        rungs = [Rung("is there", ok=False, detail=f"{DEVICE} does not exist")]
    if not all(rung.ok for rung in rungs):
        return judge(rungs, accel)
    kernels = host_kernels() if kernels is None else kernels
    return judge([*rungs, _boot(kernels, accel)], accel)._replace(final=bool(kernels))


def judge(rungs: Sequence[Rung], accel: str = "kvm") -> Ladder:
    """What the rungs say: the accelerator only when the last of all held."""
    broken = next((rung for rung in rungs if not rung.ok), None)
    if broken:
        return Ladder("tcg", tuple(rungs), _REMEDIES.get(broken.name, ""))
    return Ladder(accel, tuple(rungs), "")


def host_kernels() -> list[Path]:
    """Kernels of this host's own architecture, newest first."""
    arch = "x86_64" if platform.machine() == "x86_64" else "arm64"
    found = [
        path
        for name in ("kernel", "vmlinuz*")
        for path in (cache_directory() / "images").glob(f"*{arch}*/**/{name}")
        if path.is_file()
    ]
    found += [path for path in Path("/boot").glob("vmlinuz-*") if os.access(path, os.R_OK)]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def read_rungs(output: bytes, *, hung: bool) -> list[Rung]:
    """What the probe printed before it ended, or was killed.

    Args:
        output: one JSON object per line.
        hung: whether it had to be killed.
    """
    rungs = []
    for line in output.splitlines():
        told = json.loads(line)
        rungs.append(Rung(told["name"], ok=told["ok"], detail=told["detail"]))
    if all(rung.ok for rung in rungs):
        if hung:
            rungs.append(Rung("runs a CPU", ok=False, detail=f"did not come back within {_CPU_DEADLINE} s"))
        elif not rungs:
            rungs.append(Rung("opens", ok=False, detail="the probe died without a word"))
    return rungs


def _cpu() -> list[Rung]:
    argv = [sys.executable, "-m", "lab.doctor.kvm"]
    root = Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(
            argv, cwd=root, stdin=subprocess.DEVNULL, capture_output=True, timeout=_CPU_DEADLINE, check=False
        )
    except subprocess.TimeoutExpired as error:
        return read_rungs(error.stdout or b"", hung=True)
    return read_rungs(done.stdout, hung=False)


def _framework() -> Rung:
    argv = ["sysctl", "-n", "kern.hv_support"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_CPU_DEADLINE, check=False)
    said = done.stdout.strip()
    return Rung("is offered", ok=said == "1", detail=f"kern.hv_support: {said or done.stderr.strip()}")


def _boot(kernels: Sequence[Path], accel: str) -> Rung:
    name = "boots a kernel"
    qemu, machine, console = _SYSTEM.get(platform.machine(), ("", "", ""))
    if not qemu or not shutil.which(qemu):
        return Rung(name, ok=False, detail=f"no QEMU for {platform.machine()}")
    if not kernels:
        return Rung(name, ok=False, detail="no kernel here to try with: run `make lab` once, it builds one")
    argv = [
        qemu,
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
        "-m",
        "256",
        "-machine",
        f"{machine},accel={accel}",
    ]
    argv += ["-cpu", "host", "-kernel", str(kernels[0]), "-append", f"console={console} panic=-1"]
    with tempfile.NamedTemporaryFile(prefix="phase-doctor-") as log:
        argv += ["-serial", f"file:{log.name}"]
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_KERNEL_DEADLINE, check=False
            )
            end = done.stderr.decode(errors="replace").strip()[-200:] or f"QEMU exited {done.returncode}"
        except subprocess.TimeoutExpired:
            end = f"nothing after {_KERNEL_DEADLINE} s"
        if _BOOTED in Path(log.name).read_bytes():
            return Rung(name, ok=True, detail=str(kernels[0]))
    return Rung(name, ok=False, detail=f"{kernels[0].name}: {end}")
