"""The seed's initramfs: CPython cut down to what phase.boot imports, busybox, modules."""

import shutil
from pathlib import Path

from boot import stage as staging
from boot import tree

#: Imports everything that the seed may import, also on demand. OpenSSL stays out: it is a fifth of the
#: image, the seed does not use TLS, and asyncio and hashlib work without it.
_PROGRAM = """
import importlib, sys
for name in ("_ssl", "_hashlib"):
    sys.modules[name] = None
from phase.boot import start
start.lean()
for name in (
    "phase.boot.main", "phase.boot.advertisement", "phase.boot.tor", "phase.boot.x86", "phase.boot.arm64",
    "phase.discovery.mdns", "phase.discovery.dht", "phase.fetch", "phase.trust", "phase.files",
    "nacl.bindings", "tuf.api.metadata", "_strptime", "calendar",
    "concurrent.futures.thread",
    "encodings.ascii", "encodings.latin_1", "encodings.idna",
):
    importlib.import_module(name)
for name in ("inspect", "shutil", "tempfile", "traceback"):
    dir(importlib.import_module(name))
"""
_SCRIPTS = ("mode", "network", "udhcpc", "words")
FILES = ("seed-init", *_SCRIPTS)


def build(arch: str, base: Path, project: Path, into: Path) -> None:
    """Build `kernel` and `initramfs`.

    Args:
        arch: `x86_64` or `arm64`.
        base: the architecture's unpacked tree.
        project: the directory that holds the `phase` package.
        into: an empty directory.
    """
    root = base / "root"
    stage = into / "stage"
    modules = tree.python_modules(_PROGRAM, phase=project)
    ours = [name for name in modules if name.partition(".")[0] == "phase"]
    files = tree.module_files(root, [name for name in modules if name not in ours])
    staging.copy(root, [*files, tree.PYTHON, "bin/busybox"], stage)
    for soname, library in tree.needed(root, arch, [*files, tree.PYTHON]).items():
        staging.copy_file(library, stage / soname)
    for name in ours:
        source = project / name.replace(".", "/")
        source = source / "__init__.py" if source.is_dir() else source.with_suffix(".py")
        staging.copy_file(source, stage / tree.SITE / source.relative_to(project))
    tree.compile_python(stage, drop_source=True)
    staging.copy_file(tree.HERE / "files/seed-init", stage / "init")
    for name in _SCRIPTS:
        staging.copy_file(tree.HERE / "files" / name, stage / "usr/lib/phase" / name)
    (stage / "etc").mkdir()
    (stage / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    (stage / "etc/resolv.conf").symlink_to("/run/phase/resolv")
    modules = tree.packages()["modules"]
    tree.kernel_modules(root, modules["seed"], stage)
    for name in ("bond", "cache", "efi", "rescue", "tpm", "vlan"):
        tree.kernel_modules(root, modules[name], stage, listing=f"etc/modules-{name}")
    staging.initramfs(stage, into / "initramfs")
    staging.copy_file(tree.kernel(root), into / "kernel")
    staging.write_contents(stage, into, packages=base / "packages.json")
    shutil.rmtree(stage)
