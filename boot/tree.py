"""The unpacked packages and wheels of one architecture, and the choice of files from them.

No program of the target architecture is executed: the needs of an ELF file are read from its dynamic
section. Those of a Python program are found by running it in the tree of the *host's* architecture, which
holds the same versions.
"""

import json
import platform
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

from boot import cache, debs
from boot.errors import BuildError
from boot.run import run

HERE = Path(__file__).parent
MULTIARCH = {"x86_64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
_WHEEL_PLATFORMS = {"x86_64": "x86_64", "arm64": "aarch64"}
PYTHON = "usr/bin/python3.11"
SITE = "usr/lib/python3/dist-packages"


def packages() -> dict[str, Any]:
    """boot/packages.toml, as it stands."""
    with (HERE / "packages.toml").open("rb") as handle:
        return tomllib.load(handle)


def host_arch() -> str:
    """The architecture this build runs on, one of ours."""
    machine = platform.machine()
    found = {"x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}.get(machine)
    if found is None:
        raise BuildError(f"images are built on x86_64 or arm64 hosts, and this is {machine}")
    return found


def unpacked(arch: str, *, refresh: bool = False) -> Path:
    """Unpack all packages and wheels that images of this architecture may take files from.

    Args:
        arch: `x86_64` or `arm64`.
        refresh: look for newer packages in the archive.

    Returns:
        A directory: `root/` is a Debian file system, `packages.json` lists its packages.
    """
    wanted = packages()
    suite: str = wanted["debian"]["suite"]
    names = [*wanted["debian"]["seed"], *wanted["debian"]["system"], wanted["debian"]["kernel"][arch]]
    wheels = [*wanted["wheels"]["seed"], *wanted["wheels"]["system"]]
    found = debs.resolve(suite, arch, names, refresh=refresh)

    def build(into: Path) -> None:
        root = into / "root"
        root.mkdir()
        debs.unpack(suite, arch, found, root)
        _install_wheels(arch, wheels, root / SITE)
        listed = [
            {"kind": "deb", "name": deb.name, "version": deb.version, "sha256": deb.sha256} for deb in found
        ]
        listed += [{"kind": "wheel", "name": w.split("==")[0], "version": w.split("==")[1]} for w in wheels]
        (into / "packages.json").write_text(json.dumps(listed, indent=1) + "\n")

    inputs = {"debs": [deb.sha256 for deb in found], "wheels": wheels, "format": 1}
    return cache.get(f"tree-{arch}", inputs, build)


def _install_wheels(arch: str, wheels: Sequence[str], into: Path) -> None:
    platforms = [f"manylinux_2_{minor}_{_WHEEL_PLATFORMS[arch]}" for minor in (36, 34, 28, 17)]
    platforms.append(f"manylinux2014_{_WHEEL_PLATFORMS[arch]}")
    argv: list[str | Path] = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
    argv += [
        "--disable-pip-version-check",
        "--no-input",
        "--python-version",
        "3.11",
        "--implementation",
        "cp",
    ]
    argv += ["--only-binary=:all:", "--target", into]
    for name in platforms:
        argv += ["--platform", name]
    run([*argv, *wheels], hint="Is the Python package index reachable?")


def interpreter(root: Path, arch: str) -> list[str]:
    """The command that runs a tree's own Python on a host of the same architecture, without root."""
    libraries = root / "lib" / MULTIARCH[arch]
    loader = next(libraries.glob("ld-linux-*.so.*"))
    path = f"{libraries}:{root / 'usr/lib' / MULTIARCH[arch]}"
    return [str(loader), "--library-path", path, str(root / PYTHON)]


def python_modules(program: str, *, phase: Path) -> list[str]:
    """The modules that a program has imported by its end.

    Args:
        program: Python source; run with the site directory and `phase` importable.
        phase: the directory that holds the `phase` package.

    Returns:
        Dotted module names that came from files, sorted.
    """
    arch = host_arch()
    root = unpacked(arch) / "root"
    listing = (
        "\nimport sys as _s, json as _j\n"
        "print(_j.dumps(sorted(n for n, m in list(_s.modules.items()) if getattr(m, '__file__', None))))\n"
    )
    printed = run(
        [*interpreter(root, arch), "-s", "-S", "-B", "-c", program + listing],
        env={"PYTHONHOME": str(root / "usr"), "PYTHONPATH": f"{root / SITE}:{phase}"},
    )
    names: list[str] = json.loads(printed.strip().splitlines()[-1])
    return [name for name in names if name != "__main__"]


def module_files(root: Path, modules: Iterable[str]) -> list[str]:
    """The files of modules in a tree of any architecture.

    Args:
        root: the tree.
        modules: dotted names.

    Returns:
        Paths relative to the tree: `.py` files and extension modules. A module found nowhere is
        left out: some extensions of one architecture are built in on another.
    """
    found = []
    bases = [root / "usr/lib/python3.11", root / "usr/lib/python3.11/lib-dynload", root / SITE]
    for module in modules:
        relative = module.replace(".", "/")
        for base in bases:
            candidates = [base / relative / "__init__.py", base / f"{relative}.py"]
            candidates += sorted((base / relative).parent.glob(f"{relative.rpartition('/')[2]}.*so"))
            chosen = next((path for path in candidates if path.is_file()), None)
            if chosen:
                found.append(chosen.relative_to(root).as_posix())
                break
    return found


def needed(root: Path, arch: str, files: Iterable[str]) -> dict[str, Path]:
    """The shared libraries and the loader that ELF files need, directly or through others.

    Args:
        root: the tree.
        arch: its architecture.
        files: paths in the tree; those that are not ELF are passed over.

    Returns:
        Image path (under its soname) to host file.
    """
    places = [root / "lib" / MULTIARCH[arch], root / "usr/lib" / MULTIARCH[arch]]
    queue = [root / name for name in files]
    result: dict[str, Path] = {}
    seen: set[Path] = set()
    while queue:
        path = queue.pop()
        if path in seen or not path.is_file():
            continue
        seen.add(path)
        try:
            with path.open("rb") as handle:
                elf = ELFFile(handle)
                dynamic = elf.get_section_by_name(".dynamic")
                names = []
                if isinstance(dynamic, DynamicSection):
                    for tag in dynamic.iter_tags("DT_NEEDED"):
                        names.append(str(vars(tag)["needed"]))
                interp = elf.get_section_by_name(".interp")
                if interp:
                    wanted = interp.data().rstrip(b"\0").decode()
                    result[wanted.lstrip("/")] = (places[0] / Path(wanted).name).resolve()
        except ELFError:
            continue
        # A wheel brings private libraries in a sibling directory.
        beside = [path.parent, *path.parent.parent.glob("*.libs")]
        for name in names:
            for place in [*places, *beside]:
                if (place / name).exists():
                    library = (place / name).resolve()
                    if place in places:
                        result[f"lib/{MULTIARCH[arch]}/{name}"] = library
                    else:
                        result[(place / name).relative_to(root).as_posix()] = library
                    queue.append(library)
                    break
            else:
                if not name.startswith("ld-linux"):
                    raise BuildError(
                        f"{path.relative_to(root)} needs {name}, which no package of boot/packages.toml has"
                    )
    return result


def compile_python(root: Path, *, drop_source: bool) -> None:
    """Byte-compile every module of a staged image with the target's own Python version.

    Args:
        root: the staged image.
        drop_source: keep only the byte code, as `module.pyc` in place of the source.
    """
    arch = host_arch()
    host_root = unpacked(arch) / "root"
    # One process and a fixed order, since marshal's output depends on strings interned before.
    argv = [*interpreter(host_root, arch), "-s", "-S", "-B", "-m", "compileall", "-q", "-f"]
    argv += ["-b"] if drop_source else []
    argv += ["--invalidation-mode", "unchecked-hash", "-s", str(root), "-p", "/", str(root)]
    run(
        argv,
        env={"PYTHONHOME": str(host_root / "usr"), "PYTHONHASHSEED": "0"},
    )
    if drop_source:
        for path in sorted(root.rglob("*.py")):
            path.unlink()


def kernel(root: Path) -> Path:
    """The kernel image of a tree."""
    return next((root / "boot").glob("vmlinuz-*"))


def kernel_modules(root: Path, names: Sequence[str], stage: Path, *, listing: str = "etc/modules") -> None:
    """Copy the named kernel modules and their dependencies.

    A file in the stage lists them in the order for `insmod`, which is one small process each, while
    `modprobe` would read the dependency list every time.

    Args:
        root: the tree.
        names: module names; those that this architecture's kernel lacks are left out.
        stage: the staged image.
        listing: that file's name there.
    """
    version = next((root / "lib/modules").iterdir()).name
    source = root / "lib/modules" / version
    if not (source / "modules.dep").exists():
        run(["depmod", "-b", root, version])
    depends: dict[str, tuple[str, list[str]]] = {}
    for line in (source / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        depends[Path(path).stem.replace("-", "_")] = (path, rest.split())
    order: list[str] = []

    def add(path: str) -> None:
        name = Path(path).stem.replace("-", "_")
        for dependency in reversed(depends[name][1]):
            if dependency not in order:
                add(dependency)
        if depends[name][0] not in order:
            order.append(depends[name][0])

    for name in names:
        entry = depends.get(name.replace("-", "_"))
        if entry:
            add(entry[0])
    target = stage / "lib/modules" / version
    for path in order:
        destination = target / path
        destination.parent.mkdir(parents=True, exist_ok=True)
        destination.write_bytes((source / path).read_bytes())
    written = stage / listing
    written.parent.mkdir(parents=True, exist_ok=True)
    written.write_text("".join(f"/lib/modules/{version}/{path}\n" for path in order))
