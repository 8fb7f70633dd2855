"""A tree for the TFTP and HTTP servers that a network has: seeds, and scripts for iPXE that start them.

Every name in a script is relative to the script, so the tree works under any address and in any directory.
"""

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from boot import baked, images, uki
from boot.errors import BuildError
from boot.media import build
from boot.media.sums import NAME as SUMS
from phase import files

#: What asks iPXE for the processor: a BIOS's iPXE calls itself i386 on every machine, and looks for 64 bits.
_CHOICE = """#!ipxe
set arch ${buildarch}
iseq ${arch} i386 && cpuid --ext 29 && set arch x86_64 ||
chain --replace ${arch}/boot.ipxe
"""
#: Words that iPXE's shell reads as its own, and has no way to quote.
_SHELL = ("||", "&&", ";")


class Seed(NamedTuple):
    """A seed of one architecture.

    Attributes:
        kernel: of it.
        initramfs: of it, with what is baked in.
        uki: the same in one UEFI program.
        line: its kernel command line.
    """

    kernel: bytes
    initramfs: bytes
    uki: bytes
    line: str


def make(plan: "build.Plan", out: Path) -> list[Path]:
    """Build the seeds, and write the tree.

    Args:
        plan: what it boots; each seed in the plan's mode.
        out: the directory; its files are replaced one by one, each whole, and others are left alone.

    Returns:
        The files that were written.

    Raises:
        BuildError: it cannot be built.
        OSError: it cannot be written.
    """
    if plan.kept:
        raise BuildError("a tree for servers has no partition to keep releases on")
    if plan.loader not in (build.LOADERS[0], "uki"):
        raise BuildError(f"a tree for servers has no loader, so it cannot be {plan.loader}")
    if out.exists() and not out.is_dir():
        raise BuildError(f"{out} is not a directory")
    with tempfile.TemporaryDirectory(prefix="phase-served-") as work:
        seeds = {arch: _seed(plan, arch, Path(work)) for arch in plan.arches}
    return write(out, seeds)


def write(out: Path, seeds: Mapping[str, Seed]) -> list[Path]:
    """Write the tree; the same seeds give the same bytes. `SHA256SUMS` comes last.

    Args:
        out: the directory.
        seeds: by architecture.

    Returns:
        The files that were written.

    Raises:
        BuildError: a command line has a word that iPXE cannot pass on.
        OSError: it cannot be written.
    """
    tree = {"boot.ipxe": _CHOICE.encode()}
    for arch, seed in seeds.items():
        tree[f"{arch}/boot.efi"] = seed.uki
        tree[f"{arch}/boot.ipxe"] = _script(seed.line).encode()
        tree[f"{arch}/initramfs"] = seed.initramfs
        tree[f"{arch}/kernel"] = seed.kernel
    tree[SUMS] = "".join(
        f"{hashlib.sha256(tree[name]).hexdigest()}  {name}\n" for name in sorted(tree)
    ).encode()
    for name, content in tree.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, content, mode=0o644)
    return [out / name for name in tree]


def _script(line: str) -> str:
    for word in line.split():
        if word in _SHELL or word.startswith("#") or "${" in word:
            raise BuildError(f"iPXE has no way to quote {word!r}, which is in the kernel command line")
    return f"#!ipxe\nkernel kernel initrd=initramfs {line}\ninitrd --name initramfs initramfs\nboot\n"


def _seed(plan: "build.Plan", arch: str, work: Path) -> Seed:
    seed, line = images.seed(arch), plan.options(arch, plan.mode)
    initramfs, whole = work / f"initramfs-{arch}", work / f"uki-{arch}"
    initramfs.write_bytes(baked.initramfs(arch, plan.config, tor=plan.tor))
    uki.build(uki.stub(arch), seed.kernel, initramfs, line, whole, plan.signer)
    return Seed(seed.kernel.read_bytes(), initramfs.read_bytes(), whole.read_bytes(), line)
