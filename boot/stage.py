"""Fills the directory that an image is made from, and lists its content."""

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from boot import elf
from boot.run import run
from phase.boot import cpio


def copy(root: Path, names: Iterable[str], stage: Path) -> None:
    """Copy files of a tree to the same place in the stage, links followed."""
    for name in names:
        copy_file((root / name).resolve(), stage / name)


def copy_file(source: Path, target: Path) -> None:
    """Copy one file; of its mode only "executable" is kept, and of a shared library what is loaded."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if ".so" in target.suffixes:
        target.write_bytes(elf.loaded(source.read_bytes(), source.name))
    else:
        shutil.copyfile(source, target)
    target.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)


def initramfs(stage: Path, out: Path) -> None:
    """Pack a stage as a zstd-compressed cpio, with the two devices a first process needs."""
    nodes = [
        cpio.directory("dev"),
        cpio.character("dev/console", 5, 1),
        cpio.character("dev/null", 1, 3, 0o666),
        *cpio.tree(stage),
    ]
    plain = out.with_suffix(".cpio")
    with plain.open("wb") as handle:
        cpio.write(handle, nodes)
    # One thread, since zstd's output depends on how several threads divide the input.
    run(["zstd", "-q", "-19", "--single-thread", "--no-check", plain, "-o", out])
    plain.unlink()
    # The kernel looks for a further archive at the next multiple of four, past zeros only.
    with out.open("ab") as handle:
        handle.write(bytes(-out.stat().st_size % 4))


def write_contents(stage: Path, into: Path, *, packages: Path) -> None:
    """Write an image's own list: its outputs, the packages they come from, each file.

    Args:
        stage: the directory that the image was made from.
        into: the image's directory; gets `contents.json`.
        packages: the tree's package list.
    """
    contents = {
        "outputs": [_describe(path, into) for path in sorted(into.iterdir()) if path.is_file()],
        "packages": json.loads(packages.read_text()),
        "files": [
            _describe(path, stage)
            for path in sorted(stage.rglob("*"))
            if path.is_file() and not path.is_symlink()
        ],
    }
    (into / "contents.json").write_text(json.dumps(contents, indent=1) + "\n")


def _describe(path: Path, base: Path) -> dict[str, str | int]:
    data = path.read_bytes()
    name = path.relative_to(base).as_posix()
    return {"path": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
