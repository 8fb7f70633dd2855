"""UEFI programs of the distribution: boot loaders, and the stub of unified kernel images."""

from pathlib import Path
from typing import NamedTuple

from boot import cache, debs, tree


class Program(NamedTuple):
    """A UEFI program.

    Attributes:
        path: of its file.
        package: that it comes from.
    """

    path: Path
    package: debs.Deb


class _Source(NamedTuple):
    package: str
    path: str


_SYSTEMD = "usr/lib/systemd/boot/efi"
_GRUB = "usr/lib/grub"
_SOURCES = {
    ("stub", "x86_64"): _Source("systemd-boot-efi", f"{_SYSTEMD}/linuxx64.efi.stub"),
    ("stub", "arm64"): _Source("systemd-boot-efi", f"{_SYSTEMD}/linuxaa64.efi.stub"),
    ("systemd-boot", "x86_64"): _Source("systemd-boot-efi", f"{_SYSTEMD}/systemd-bootx64.efi"),
    ("systemd-boot", "arm64"): _Source("systemd-boot-efi", f"{_SYSTEMD}/systemd-bootaa64.efi"),
    # The whole of GRUB in one file, so that no tool of GRUB is needed to make one.
    ("grub", "x86_64"): _Source("grub-efi-amd64-signed", f"{_GRUB}/x86_64-efi-signed/grubx64.efi.signed"),
    ("grub", "arm64"): _Source("grub-efi-arm64-signed", f"{_GRUB}/arm64-efi-signed/grubaa64.efi.signed"),
}


def get(kind: str, arch: str, *, refresh: bool = False) -> Program:
    """A program; its package is fetched if it is not in the cache.

    Args:
        kind: `stub`, `systemd-boot` or `grub`.
        arch: `x86_64` or `arm64`.
        refresh: look for a newer one in the archive.
    """
    source = _SOURCES[kind, arch]
    suite: str = tree.packages()["debian"]["suite"]
    (deb,) = debs.resolve(suite, arch, [source.package], refresh=refresh)

    def build(into: Path) -> None:
        debs.unpack(suite, arch, [deb], into)

    directory = cache.get(f"{source.package}-{arch}", {"debs": [deb.sha256]}, build)
    return Program(directory / source.path, deb)
