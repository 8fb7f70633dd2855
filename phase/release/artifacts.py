"""Finds the artifacts in a directory, by the names that people give them.

If others than the publisher may write to the directory, links are followed only within it.
"""

import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import msgspec

from phase import beneath
from phase.beneath import Beneath, OutsideError
from phase.errors import unreadable
from phase.release.errors import RepositoryError
from phase.release.manifest import check_cmdline, is_name

#: Usual file names of each artifact; the first that exists counts.
NAMES = {
    "kernel": ("kernel", "vmlinuz", "bzImage", "Image", "linux"),
    "initramfs": ("initramfs", "initramfs.img", "initrd.img", "initrd", "initramfs.cpio"),
    "rootfs": ("rootfs", "rootfs.squashfs", "rootfs.img", "rootfs.sqfs", "root.squashfs"),
    "uki": ("uki", "uki.efi", "linux.efi"),
}
_MAX_CMDLINE = 4096
_File = TypeVar("_File", Path, Beneath)


def find_artifacts(directory: Path) -> dict[str, Path]:
    """The artifacts of a directory that its owner gives, under any of their usual names. Links are followed.

    Args:
        directory: `{channel}/{arch}` of an artifacts directory.

    Returns:
        Name to file.

    Raises:
        RepositoryError: no such directory, or no kernel in it.
    """
    try:
        there = {p.name: p for p in sorted(directory.iterdir()) if p.is_file()}
    except OSError as error:
        raise _no_artifacts(directory, error) from error
    return _chosen(there, directory)


def artifacts_beneath(root: Path, path: str) -> dict[str, Beneath]:
    """The artifacts of a directory that others may write to. Links are followed only within `root`.

    Args:
        root: the artifacts directory; may be a link.
        path: `{channel}/{arch}` in it.

    Returns:
        Name to file.

    Raises:
        RepositoryError: no such directory, no kernel in it, or an artifact that is not a plain file
            in `root`.
    """
    directory = root / path
    try:
        there = {name: Beneath(root, f"{path}/{name}") for name in beneath.names(root, path)}
    except OSError as error:
        raise _no_artifacts(directory, error) from error
    # A directory may have one of the names.
    files_there = {name: file for name, file in there.items() if not (directory / name).is_dir()}
    found = _chosen(files_there, directory)
    for file in found.values():
        _stat(file)
    return found


def _no_artifacts(directory: Path, error: OSError) -> RepositoryError:
    return RepositoryError(
        f"no artifacts at {directory}: {error.strerror}",
        hint="Put kernel, initramfs and rootfs into {channel}/{arch} there, or a release: "
        "`phase release export REPO DIRECTORY`, or `phase serve --follow` for a mirror.",
    )


def _chosen(there: Mapping[str, _File], directory: Path) -> dict[str, _File]:
    """The artifacts among files, by their usual names."""
    found = {}
    for name, usual in NAMES.items():
        match = next((there[each] for each in usual if each in there), None)
        if match is not None:
            found[name] = match
    for file, path in there.items():
        tree = dtb_name(file)
        if tree is not None and found.setdefault(tree, path) is not path:
            raise RepositoryError(f"{directory} has two device trees {tree}", hint="Rename one of them.")
    if "kernel" not in found:
        raise RepositoryError(
            f"no kernel in {directory}; it has {', '.join(there)[:200] or 'nothing'}",
            hint=f"Call it one of {', '.join(NAMES['kernel'])}.",
        )
    return found


def dtb_name(file: str) -> str | None:
    """The artifact's name of a device tree's file: `virt.dtb` is `dtb-virt`; None for other files."""
    name = file if file.startswith("dtb-") else f"dtb-{file.removesuffix('.dtb').lower()}"
    usual = file.startswith("dtb-") or file.endswith(".dtb")
    return name if usual and is_name(name) else None


def left_out(directory: Path, found: Mapping[str, Path]) -> list[str]:
    """The files of a directory that are not artifacts, to warn that they are not released."""
    used = {path.name for path in found.values()} | {"cmdline"}
    names = (path.name for path in directory.iterdir() if not path.name.startswith("."))
    return sorted(name for name in names if name not in used)


def read_cmdline(directory: Path) -> str:
    """The kernel command line in the file `cmdline`; empty without that file.

    Raises:
        RepositoryError: it cannot be read.
        ManifestError: it is not a command line.
    """
    return _read_cmdline(Beneath(Path("/"), str(directory.absolute() / "cmdline")))


def read_cmdline_beneath(root: Path, path: str) -> str:
    """The same, of a directory that others may write to.

    Args:
        root: the artifacts directory; may be a link.
        path: `{channel}/{arch}` in it.

    Raises:
        RepositoryError: it cannot be read.
        ManifestError: it is not a command line.
    """
    return _read_cmdline(Beneath(root, f"{path}/cmdline"))


def _read_cmdline(file: Beneath) -> str:
    try:
        with file.open() as handle:
            text = handle.read(_MAX_CMDLINE).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise _unreadable(file, error) from error
    return check_cmdline(" ".join(text.split()))


def _stat(file: Beneath) -> os.stat_result:
    try:
        return file.stat()
    except OSError as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Beneath, error: OSError) -> RepositoryError:
    hint = ""
    if isinstance(error, OutsideError):
        hint = "Copy the file there; links are followed only within the artifacts directory."
    return RepositoryError(unreadable(file, error), hint=hint)


def scan(found: Mapping[str, Beneath], cmdline: str) -> str:
    """A digest that changes when a file is replaced or written to, without reading it."""
    facts: list[object] = [cmdline]
    for name, file in sorted(found.items()):
        status = _stat(file)
        facts.append((name, status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns))
    return sha256(msgspec.json.encode(facts)).hexdigest()
