"""The files that `phase release add` is given."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import click

from phase.cli._tell import Out, note
from phase.release import artifacts, content
from phase.release.errors import ContentError, ManifestError


def gathered(
    directory: Path | None, given: Mapping[str, Path | None], dtbs: Iterable[Path]
) -> dict[str, Path]:
    """The artifacts of a release: those of a directory, and those that are named.

    Args:
        directory: holds artifacts under their usual names.
        given: file by artifact; None where none was given.
        dtbs: device trees.

    Raises:
        ReleaseError: the directory has no kernel; or a device tree has a name that cannot be one.
    """
    found = artifacts.find_artifacts(directory) if directory else {}
    if directory and (others := artifacts.left_out(directory, found)):
        note(f"left out of the release: {', '.join(others)}")
    found |= {name: path for name, path in given.items() if path is not None}
    trees: dict[str, Path] = {}
    for path in dtbs:
        name = artifacts.dtb_name(f"{path.stem}.dtb")
        if name is None:
            raise ManifestError(
                f"{path} cannot be an artifact under its name", hint="Lower case letters, digits, . _ -"
            )
        if name in trees:
            raise click.UsageError("two device trees have the same name; rename one of them")
        trees[name] = path
    return found | trees


def check(found: Mapping[str, Path], arch: str, out: Out, *, force: bool) -> None:
    """Say what each artifact is.

    Args:
        found: file by artifact.
        arch: of the release.
        out: gets a line for each.
        force: say it only, refuse nothing.

    Raises:
        RepositoryError: one is not what it is called.
    """
    for name, path in sorted(found.items()):
        try:
            out.line(f"{name}: {content.check(name, path, arch)}")
        except ContentError as error:
            if not force:
                raise
            note(f"signed all the same: {error.what}")


def warn(found: Mapping[str, Path], cmdline: str) -> None:
    """Say what a release lacks that most kernels need: it may be meant so."""
    if "initramfs" not in found:
        note("this release has no initramfs: its kernel must find a root file system by itself")
    if not cmdline.strip():
        note("this release has an empty kernel command line: its kernel may show nothing, on no console")
