"""Builds the images, once for each content of their inputs.

The same inputs give the same bytes: times and owners are fixed, names are sorted, and byte code does not
name the build directory.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from boot import cache, debs, tree
from boot import seed as seed_image
from boot import system as system_image
from boot import tor as tor_archive
from boot.errors import BuildError
from boot.run import run
from phase import cmdline
from phase.boot import cpio
from phase.trust import Floor
from phase.trust import floor as floors

PROJECT = tree.HERE.parent
#: Limit in seconds; for longer times, sign for longer.
MAX_GRACE = 10 * 365 * 86_400


class Seed(NamedTuple):
    """A built seed. Append `config()` to the initramfs before it can trust anything."""

    arch: str
    kernel: Path
    initramfs: Path


class System(NamedTuple):
    """A built system: the artifacts of a release."""

    arch: str
    kernel: Path
    initramfs: Path
    rootfs: Path

    def artifacts(self) -> dict[str, Path]:
        """Artifact name to file, as a release takes them."""
        return {"kernel": self.kernel, "initramfs": self.initramfs, "rootfs": self.rootfs}


def seed(arch: str, *, refresh: bool = False) -> Seed:
    """The seed's kernel and initramfs, built if they are not in the cache."""
    base = tree.unpacked(arch, refresh=refresh)
    inputs = partial(_inputs, base, ("seed.py", *(f"files/{name}" for name in seed_image.FILES)))
    directory = _cached(f"seed-{arch}", inputs, lambda into: seed_image.build(arch, base, PROJECT, into))
    return Seed(arch, directory / "kernel", directory / "initramfs")


def system(arch: str, *, refresh: bool = False) -> System:
    """The system's kernel, initramfs and rootfs, built if they are not in the cache."""
    base = tree.unpacked(arch, refresh=refresh)
    inputs = partial(_inputs, base, ("system.py", *(f"files/{name}" for name in system_image.FILES)))
    directory = _cached(f"system-{arch}", inputs, lambda into: system_image.build(arch, base, PROJECT, into))
    return System(arch, directory / "kernel", directory / "initramfs", directory / "rootfs")


class Tor(NamedTuple):
    """Tor for a seed: append the archive to its initramfs, before its `config()`."""

    archive: Path
    program: Path
    packages: tuple[debs.Deb, ...]


def tor(arch: str, *, refresh: bool = False) -> Tor:
    """Tor for a seed, built if it is not in the cache."""
    debian = tree.packages()["debian"]
    found = debs.resolve(debian["suite"], arch, debian["tor"], refresh=refresh)
    inputs = partial(_tor_inputs, found)
    directory = _cached(f"tor-{arch}", inputs, lambda into: tor_archive.build(arch, found, into))
    return Tor(directory / "archive", directory / "program", tuple(found))


def config(
    root_metadata: bytes,
    *,
    allow_shell: bool = False,
    allow_offline: bool = False,
    grace: Mapping[str, int] | None = None,
    build_time: int = 0,
    floor: Floor | None = None,
    torrc: bytes = b"",
) -> bytes:
    """The part of a seed with its root of trust: an archive to append to its initramfs.

    Args:
        root_metadata: the TUF root that the seed starts from.
        allow_shell: whether `phase.rescue=shell` may give a shell.
        allow_offline: whether a release that an earlier boot kept may be booted without a provider.
        grace: mode (`phase.mode=`) to seconds for which expired timestamps and snapshots are still taken;
            modes that are left out have no grace.
        build_time: Unix seconds; the seed's clock cannot be before it.
        floor: versions below which the seed trusts nothing, even if it remembers nothing.
        torrc: more lines for the configuration of the seed's own Tor.

    Raises:
        BuildError: no mode has that name, or the time is not from 0 to ten years.
    """
    for mode, seconds in (grace or {}).items():
        if mode not in cmdline.MODES or not 0 <= seconds <= MAX_GRACE:
            raise BuildError(
                f"no grace of {seconds} s in mode {mode!r}: "
                f"modes are {', '.join(cmdline.MODES)}, and ten years is the most"
            )
    nodes = [
        cpio.regular("etc/phase/root.json", root_metadata),
        cpio.regular("etc/phase/build-time", f"{build_time}\n".encode()),
    ]
    if allow_shell:
        nodes.append(cpio.regular("etc/phase/allow-shell", b""))
    if allow_offline:
        nodes.append(cpio.regular("etc/phase/allow-offline", b""))
    for mode, seconds in sorted((grace or {}).items()):
        nodes.append(cpio.regular(f"etc/phase/grace-{mode}", f"{seconds}\n".encode()))
    if floor is not None:
        nodes.append(cpio.regular("etc/phase/floor.json", floors.encode(floor) + b"\n"))
    if torrc:
        nodes.append(cpio.regular("etc/phase/torrc", torrc))
    out = io.BytesIO()
    cpio.write(out, nodes)
    return out.getvalue()


def _cached(kind: str, inputs: Callable[[], Mapping[str, object]], build: Callable[[Path], None]) -> Path:
    """An image from the cache, or built from the sources as they are now.

    Args:
        kind: of image, with its architecture.
        inputs: gives all that it is made from, as it is at that moment.
        build: makes it in an empty directory.

    Raises:
        BuildError: they changed during the build, so that it is of neither state.
    """
    before = inputs()

    def build_steadily(into: Path) -> None:
        build(into)
        if inputs() != before:
            raise BuildError(f"the sources of {kind} changed while it was built", hint="Build it again.")

    return cache.get(kind, before, build_steadily)


def _inputs(base: Path, builders: tuple[str, ...]) -> dict[str, object]:
    always = ("packages.toml", "stage.py", "elf.py", "tree.py", "run.py")
    own = {name: tree.HERE / name for name in (*builders, *always)}
    return {
        "tree": base.name,
        "phase": cache.files_key(cache.sources(PROJECT / "phase")),
        "hello": cache.files_key({"hello.wat": PROJECT / "fixtures/hello.wat"}),
        "boot": cache.files_key(own),
        "compressors": [run(["zstd", "--version"]), run(["mksquashfs", "-version"]).splitlines()[0]],
    }


def _tor_inputs(found: Sequence[debs.Deb]) -> dict[str, object]:
    names = ("tor.py", "debs.py", "stage.py", "elf.py", "tree.py", "run.py")
    own = {name: tree.HERE / name for name in names} | {"cpio.py": PROJECT / "phase/boot/cpio.py"}
    return {
        "debs": [deb.sha256 for deb in found],
        "boot": cache.files_key(own),
        "compressor": run(["zstd", "--version"]),
    }
