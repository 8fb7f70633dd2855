"""The system: a small initramfs that checks and mounts the rootfs, and the rootfs itself."""

import shutil
from pathlib import Path

from wasmtime import wat2wasm

from boot import cache, tree
from boot import stage as staging
from boot.run import run

_SCRIPTS = ("rc", "daemon", "node", "console", "watchdog", "mode", "network", "names6", "udhcpc", "words")
FILES = ("system-init", "inittab", *_SCRIPTS)
_SBIN = ("init", "reboot", "poweroff", "halt", "udhcpc", "ip", "insmod", "modprobe", "losetup")
_PYTHON_SKIPPED = {
    "__pycache__", "bin", "config-3.11-aarch64-linux-gnu", "config-3.11-x86_64-linux-gnu", "distutils",
    "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "testing", "tests", "tkinter", "turtledemo",
}  # fmt: skip
_SUFFIXES_SKIPPED = {".pyc", ".pyi", ".pxd", ".pyx", ".h", ".c"}
#: Extension modules that are not used. TLS is not used yet: OpenSSL is 6 MB, and slow to import.
_EXTENSIONS_SKIPPED = (
    "_ssl", "_hashlib", "_sqlite3", "_bz2", "_lzma", "_crypt", "readline", "_curses", "_dbm", "_tkinter",
    "nis", "ossaudiodev", "_gdbm",
)  # fmt: skip
_EMPTY = ("dev", "proc", "sys", "run", "tmp", "root", "phase", "var/lib", "mnt", "etc/phase")


def build(arch: str, base: Path, project: Path, into: Path) -> None:
    """Build `kernel`, `initramfs` and `rootfs`.

    Args:
        arch: `x86_64` or `arm64`.
        base: the architecture's unpacked tree.
        project: the directory that holds `phase` and `fixtures`.
        into: an empty directory.
    """
    root = base / "root"
    first = into / "first"
    staging.copy(root, ["bin/busybox"], first)
    staging.copy_file(tree.HERE / "files/system-init", first / "init")
    modules = tree.packages()["modules"]
    tree.kernel_modules(root, modules["mount"], first)
    tree.kernel_modules(root, modules["watchdog"], first, listing="etc/modules-watchdog")
    staging.initramfs(first, into / "initramfs")
    shutil.rmtree(first)

    stage = into / "stage"
    _fill_python(root, arch, stage)
    _fill_phase(project, stage)
    tree.compile_python(stage, drop_source=True)
    _fill_base(root, stage)
    squash(stage, into / "rootfs")
    staging.copy_file(tree.kernel(root), into / "kernel")
    staging.write_contents(stage, into, packages=base / "packages.json")
    shutil.rmtree(stage)


def squash(stage: Path, rootfs: Path) -> None:
    """Pack a tree as a file system: the same bytes of the same tree, and most of them of one like it.

    A changed file moves what is packed behind it, and changes little of it (`bench.updates`). Without
    fragments, which hold many small files, six changed modules would make 0.020 of the bytes new in
    place of 0.029, and the file would be a fiftieth longer for everybody.

    Args:
        stage: the tree.
        rootfs: the file to write.
    """
    # SOURCE_DATE_EPOCH, set for every tool, fixes the file system's times and those of its files.
    argv: list[str | Path] = ["mksquashfs", stage, rootfs, "-quiet", "-no-progress", "-noappend"]
    # Level 19 takes two and a half times as long, for one byte in a hundred.
    argv += ["-comp", "zstd", "-Xcompression-level", "15", "-b", "131072", "-all-root", "-no-xattrs"]
    run(argv, timeout=900)


def _fill_python(root: Path, arch: str, stage: Path) -> None:
    """Copy the interpreter, the standard library without tests, all wheels, and their libraries."""
    elves = [tree.PYTHON]
    for library in ("usr/lib/python3.11", tree.SITE):
        for path in sorted((root / library).rglob("*")):
            inside = path.relative_to(root / library)
            if not path.is_file() or path.suffix in _SUFFIXES_SKIPPED or _PYTHON_SKIPPED & {*inside.parts}:
                continue
            if path.suffix == ".so" and path.name.startswith(_EXTENSIONS_SKIPPED):
                continue
            staging.copy_file(path, stage / library / inside)
            if path.suffix == ".so":
                elves.append(path.relative_to(root).as_posix())
    staging.copy(root, [tree.PYTHON, "bin/busybox"], stage)
    for soname, shared in tree.needed(root, arch, elves).items():
        staging.copy_file(shared, stage / soname)
    (stage / "usr/bin/python3").symlink_to("python3.11")


def _fill_phase(project: Path, stage: Path) -> None:
    """Copy our own package, and the job that every machine can run."""
    for name, path in cache.sources(project / "phase").items():
        staging.copy_file(path, stage / tree.SITE / "phase" / name)
    share = stage / "usr/share/phase"
    share.mkdir(parents=True)
    (share / "hello.wasm").write_bytes(wat2wasm((project / "fixtures/hello.wat").read_text()))


def _fill_base(root: Path, stage: Path) -> None:
    """Make busybox's commands, start-up files, kernel modules and the mount points."""
    host_busybox = tree.unpacked(tree.host_arch()) / "root/bin/busybox"
    (stage / "sbin").mkdir()
    for applet in run([host_busybox, "--list"]).split():
        if applet != "busybox":
            place = "sbin" if applet in _SBIN else "bin"
            (stage / place / applet).symlink_to("/bin/busybox")
    for name in _SCRIPTS:
        staging.copy_file(tree.HERE / "files" / name, stage / "usr/lib/phase" / name)
    etc = stage / "etc"
    staging.copy_file(tree.HERE / "files/inittab", etc / "inittab")
    (etc / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\nphase:x:100:100::/:/bin/false\n"
        "node:x:101:101::/:/bin/false\n"
    )
    (etc / "group").write_text("root:x:0:\nphase:x:100:\nnode:x:101:\nnogroup:x:65534:\n")
    (etc / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    (etc / "resolv.conf").symlink_to("/run/phase/resolv")
    modules = tree.packages()["modules"]
    tree.kernel_modules(root, modules["seed"], stage)
    for name in ("bond", "cache", "efi", "tpm", "vlan"):
        tree.kernel_modules(root, modules[name], stage, listing=f"etc/modules-{name}")
    for name in _EMPTY:
        (stage / name).mkdir(parents=True, exist_ok=True)
