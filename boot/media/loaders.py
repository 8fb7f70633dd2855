"""What is on an EFI system partition besides kernels: boot loaders, and what they offer."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from boot.media.disk import Files

#: What firmware starts on a medium that it does not know.
#: Source: UEFI 2.10, 3.5.1.1, "Removable Media Boot Behavior".
REMOVABLE = {"x86_64": "EFI/BOOT/BOOTX64.EFI", "arm64": "EFI/BOOT/BOOTAA64.EFI"}
#: UEFI's own names of architectures.
_UEFI_NAMES = {"x86_64": "x64", "arm64": "aa64"}
#: Where Debian's signed GRUB looks for its configuration.
GRUB = "EFI/debian/grub.cfg"
#: Seconds in which a person may choose another entry.
_SECONDS = 3
_HINTS = {
    "internet": "providers here and elsewhere",
    "local": "nothing beyond this network",
    "private": "no trace, through Tor alone",
}


class Entry(NamedTuple):
    """One line of a menu.

    Attributes:
        arch: of the machines that it is for.
        mode: what it boots in.
        options: the kernel command line.
    """

    arch: str
    mode: str
    options: str

    @property
    def title(self) -> str:
        """The line itself."""
        return f"Phase, {self.mode}: {_HINTS[self.mode]}"

    @property
    def kernel(self) -> str:
        """The kernel's path."""
        return f"phase/{self.arch}/kernel"

    @property
    def initramfs(self) -> str:
        """The initramfs' path."""
        return f"phase/{self.arch}/initramfs"


def systemd_boot(entries: Sequence[Entry], *, mode: str) -> Files:
    """The configuration of systemd-boot, which offers the entries of its own architecture.

    Args:
        entries: in the order of the menu.
        mode: of the entry that boots when a person chooses none.

    Returns:
        Path to content. Source: the UAPI group's Boot Loader Specification, type 1; loader.conf(5).
    """
    settings = [f"default {_name('*', mode)}", f"timeout {_SECONDS}", "editor no", "auto-entries no"]
    files: dict[str, bytes | Path] = {"loader/loader.conf": _text(settings)}
    for number, entry in enumerate(entries):
        lines = [
            f"title {entry.title}",
            f"sort-key {number:02d}",
            f"architecture {_UEFI_NAMES[entry.arch]}",
            f"linux /{entry.kernel}",
            f"initrd /{entry.initramfs}",
            f"options {entry.options}",
        ]
        files[f"loader/entries/{_name(entry.arch, entry.mode)}"] = _text(lines)
    return files


def grub(entries: Sequence[Entry], *, mode: str) -> Files:
    """The configuration of GRUB, where Debian's signed image looks for it.

    Args:
        entries: in the order of the menu.
        mode: of the entry that boots when a person chooses none.

    Returns:
        Path to content. Source: the GRUB manual 2.06, "Writing full configuration files directly".
    """
    # With a superuser who has no password, entries boot, and neither they nor a shell can be edited.
    lines = ["set superusers=phase", "export superusers", f"set timeout={_SECONDS}", f"set default={mode}"]
    for entry in entries:
        lines += [
            f'if [ "$grub_cpu" = {entry.arch} ]; then',
            f'menuentry "{entry.title}" --id {entry.mode} --unrestricted {{',
            f"  linux /{entry.kernel} {' '.join(map(_quoted, entry.options.split(' ')))}",
            f"  initrd /{entry.initramfs}",
            "}",
            "fi",
        ]
    return {GRUB: _text(lines)}


def grub_of_cd(serial: int) -> Files:
    """What a CD's own file system holds for GRUB, which looks for its configuration there.

    Args:
        serial: number of the FAT file system with the configuration and all the rest.
    """
    name = f"{serial >> 16:04X}-{serial & 0xFFFF:04X}"
    return {GRUB: _text([f"search --set=root --fs-uuid {name}", f"configfile ($root)/{GRUB}"])}


def _name(arch: str, mode: str) -> str:
    return f"phase-{arch}-{mode}.conf"


def _text(lines: Sequence[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()


def _quoted(word: str) -> str:
    """A word of GRUB's script, in which nothing has a meaning; it has no quote itself."""
    return f"'{word}'"
