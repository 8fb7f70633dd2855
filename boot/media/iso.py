"""An ISO 9660 image that is a disk image too, by xorriso.

A CD's firmware finds the EFI system partition by the El Torito catalog, a stick's firmware by the partition
table: it is the same one.
"""

import os
import tempfile
from pathlib import Path

from boot.media import disk, fat, gpt, loaders
from boot.media.disk import Files
from boot.run import run

_README = """This medium boots a Phase seed on UEFI machines. What it boots is in its EFI system partition,
which is not part of this file system.
"""
#: 1980, as of all files on a medium.
_TIME = 315_532_800


def write(image: Path, files: Files) -> None:
    """Make an ISO image. The same files give the same bytes.

    Args:
        image: the file; it is made, or replaced.
        files: path in the EFI system partition to content.

    Raises:
        BuildError: a tool is missing, or failed.
    """
    identity = disk.identity(files)
    length = fat.size(files)
    with tempfile.TemporaryDirectory(dir=image.parent) as work:
        esp, tree = Path(work) / "esp", Path(work) / "tree"
        with esp.open("xb") as made:
            made.truncate(length)
        fat.write(esp, files, offset=0, length=length, serial=disk.serial(identity))
        own: Files = {"README.TXT": _README.encode()}
        if loaders.GRUB in files:
            own = {**own, **loaders.grub_of_cd(disk.serial(identity))}
        _fill(tree, own)
        run(
            [
                "xorriso", "-as", "mkisofs", "-quiet", "-o", image, "-V", "PHASE", "-r", "-no-pad",
                "--gpt_disk_guid", gpt.guid(identity, "").hex, "-partition_offset", "16",
                "-append_partition", "2", gpt.ESP, esp, "-appended_part_as_gpt", "-c", "boot.cat",
                "-e", "--interval:appended_partition_2:all::", "-no-emul-boot", tree,
            ]
        )  # fmt: skip


def _fill(tree: Path, files: Files) -> None:
    """Make a directory of files, whose times are those of a medium."""
    for name, content in files.items():
        place = tree / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    for path in sorted(tree.rglob("*"), reverse=True):
        os.utime(path, (_TIME, _TIME))
    os.utime(tree, (_TIME, _TIME))
