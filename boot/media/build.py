"""Builds media from seeds. The same inputs give the same bytes."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from boot import baked, images, programs, uki
from boot.errors import BuildError
from boot.media import disk, iso, line, loaders, spdx, sums
from boot.media.disk import Files
from boot.media.loaders import Entry
from boot.media.spdx import Package
from boot.run import run
from boot.signing import Signer
from phase import cmdline

LOADERS = ("systemd-boot", "grub", "uki")


class Plan(NamedTuple):
    """What a medium boots.

    Attributes:
        arches: for which machines.
        config: the archive that goes behind each seed's initramfs, from `boot.images.config`.
        channel: of the releases.
        mode: `internet`, `local` or `private`: what it boots in when a person chooses nothing else.
        words: more of the kernel command line.
        loader: what firmware starts, one of `LOADERS`; with `uki` there is no choice of modes.
        kept: bytes of a partition on which the seed keeps releases; 0 for none.
        built: Unix seconds, for the list of contents.
        tor: whether seeds have Tor.
        signer: who signs the unified kernel images for Secure Boot; not signed when None.
    """

    arches: tuple[str, ...]
    config: bytes
    channel: str = "stable"
    mode: str = cmdline.MODES[0]
    words: str = ""
    loader: str = LOADERS[0]
    kept: int = 0
    built: int = 0
    tor: bool = False
    signer: Signer | None = None

    def options(self, arch: str, mode: str) -> str:
        """The kernel command line of an entry."""
        return line.compose(arch, channel=self.channel, mode=mode, words=self.words)


class Content(NamedTuple):
    """What the EFI system partition holds, and what that was made of."""

    files: dict[str, bytes | Path]
    packages: list[Package]


def build(kind: str, plan: Plan, out: Path) -> list[Path]:
    """Write a medium, its list of contents, and its line of `SHA256SUMS` in the same directory.

    Args:
        kind: `usb`, a disk image to copy to a stick; `qcow2`, the same for virtual machines; `iso`, for CDs
            and sticks.
        plan: what it boots.
        out: the file; it is whole or as before.

    Returns:
        The files that were written.

    Raises:
        BuildError: it cannot be built.
        OSError: it cannot be written.
    """
    if kind == "iso" and plan.kept:
        raise BuildError("an ISO image has no partition to keep releases on: a CD cannot be written to")
    if plan.signer and plan.loader != "uki":
        raise BuildError(
            f"the loader {plan.loader} would start programs without a signature",
            hint="A medium is signed as one program: take --loader uki.",
        )
    if out.exists() and not out.is_file():
        raise BuildError(f"{out} is not a file", hint="`python -m boot write` writes a medium to a device.")
    out.parent.mkdir(parents=True, exist_ok=True)
    listed = out.with_name(f"{out.name}.spdx.json")
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as directory:
        work = Path(directory)
        content = gather(plan, work)
        KINDS[kind](plan, content.files, work / "medium", work)
        text = spdx.document(work / "medium", out.name, content.files, content.packages, plan.built)
        (work / "list").write_bytes(text)
        for made, place in ((work / "list", listed), (work / "medium", out)):
            with made.open("rb") as handle:
                os.fsync(handle.fileno())
            made.replace(place)
    return [out, listed, sums.write(out.parent, [out, listed])]


def _usb(plan: Plan, files: Files, image: Path, work: Path) -> None:
    disk.write(image, files, kept=plan.kept)


def _qcow2(plan: Plan, files: Files, image: Path, work: Path) -> None:
    raw = work / "raw"
    _usb(plan, files, raw, work)
    # One coroutine: several write clusters in the order in which they come.
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-m", "1", raw, image])


def _iso(plan: Plan, files: Files, image: Path, work: Path) -> None:
    iso.write(image, files)


KINDS: dict[str, Callable[[Plan, Files, Path, Path], None]] = {"usb": _usb, "qcow2": _qcow2, "iso": _iso}


def gather(plan: Plan, work: Path) -> Content:
    """What the EFI system partition holds.

    Args:
        plan: what it boots.
        work: a directory for the files that are made; it has to stay as long as they are needed.
    """
    content = Content({}, [])
    for arch in plan.arches:
        _add_seed(content, plan, arch, work)
    entries = [Entry(arch, mode, plan.options(arch, mode)) for arch in plan.arches for mode in cmdline.MODES]
    if plan.loader == "systemd-boot":
        content.files.update(loaders.systemd_boot(entries, mode=plan.mode))
    elif plan.loader == "grub":
        content.files.update(loaders.grub(entries, mode=plan.mode))
    return content


def _add_seed(content: Content, plan: Plan, arch: str, work: Path) -> None:
    """Add a seed and what starts it."""
    seed = images.seed(arch)
    initramfs = work / f"initramfs-{arch}"
    initramfs.write_bytes(baked.initramfs(arch, plan.config, tor=plan.tor))
    first = loaders.REMOVABLE[arch]
    if plan.loader == "uki":
        program = programs.get("stub", arch)
        content.files[first] = whole = work / f"uki-{arch}"
        uki.build(program.path, seed.kernel, initramfs, plan.options(arch, plan.mode), whole, plan.signer)
    else:
        program = programs.get(plan.loader, arch)
        entry = Entry(arch, plan.mode, "")
        content.files.update({first: program.path, entry.kernel: seed.kernel, entry.initramfs: initramfs})
    content.packages.append(spdx.of_deb(arch, program.package))
    content.packages.extend(spdx.of_seed(arch, seed.initramfs.with_name("contents.json")))
    if plan.tor:
        content.packages.extend(spdx.of_deb(arch, deb) for deb in images.tor(arch).packages)
