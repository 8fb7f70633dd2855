"""Tor for a seed: Debian's program with all that it needs, in a place of its own.

It is an archive to append to a seed's initramfs: a seed that does not need it stays as small as it is.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from boot import debs, tree
from boot import stage as staging
from boot.run import run
from phase.boot import cpio

_PROGRAM, _KEYS = "usr/bin/tor", "usr/bin/tor-gencert"
_PLACE = "usr/lib/tor"


def build(arch: str, found: Sequence[debs.Deb], into: Path) -> None:
    """Build `archive`: the program, its libraries, and their loader as `ld.so`.

    They are in `program`, too, for a host of that architecture, with what makes an authority's keys.

    Args:
        arch: `x86_64` or `arm64`.
        found: the packages, resolved.
        into: an empty directory.
    """
    root, stage = into / "root", into / "stage"
    root.mkdir()
    debs.unpack(tree.packages()["debian"]["suite"], arch, found, root)
    staging.copy_file(root / _PROGRAM, stage / _PLACE / "tor")
    for name, library in tree.needed(root, arch, [_PROGRAM, _KEYS]).items():
        last = Path(name).name
        staging.copy_file(library, stage / _PLACE / ("ld.so" if last.startswith("ld-linux") else last))
    for path in (stage / _PLACE).iterdir():
        path.chmod(0o755)
    plain = into / "archive.cpio"
    with plain.open("wb") as handle:
        cpio.write(handle, cpio.tree(stage))
    run(["zstd", "-q", "-19", "--single-thread", "--no-check", plain, "-o", into / "archive"])
    plain.unlink()
    # The kernel looks for a further archive at the next multiple of four.
    with (into / "archive").open("ab") as handle:
        handle.write(bytes(-handle.tell() % 4))
    (stage / _PLACE).rename(into / "program")
    staging.copy_file(root / _KEYS, into / "program/tor-gencert")
    shutil.rmtree(root)
    shutil.rmtree(stage)
