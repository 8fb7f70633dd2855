"""The private Python environment of the Debian package, for either architecture.

    python3 debian/environment.py install TREE SUBSTVARS --arch amd64     what debian/rules calls
    python3 debian/environment.py wheels DIRECTORY --arch arm64           keeps the wheels it needs

What Debian has in a version that fits is taken from Debian: `LIBRARIES`. All else comes as wheels, from the
directory that PHASE_WHEELHOUSE names, or else from the package index that pip is set up for. Nothing of the
target's architecture is run, so each architecture can be built on the other.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
#: Of manylinux; what Debian 12 can load.
GLIBC_MINORS = (36, 34, 28, 17)
#: Wheel of the index -> Debian's package, and what that has in `dist-packages`, metadata last.
LIBRARIES = {
    "attrs": ("python3-attr", ("attr", "attrs", "attrs-*-info")),
    "frozenlist": ("python3-frozenlist", ("frozenlist", "frozenlist-*-info")),
    "idna": ("python3-idna", ("idna", "idna-*-info")),
    "multidict": ("python3-multidict", ("multidict", "multidict-*-info")),
    "pycparser": ("python3-pycparser", ("pycparser", "pycparser-*-info")),
}
DEBIAN_SITE = Path("/usr/lib/python3/dist-packages")
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"


def pip(*words: str | Path) -> str:
    """Run Debian's pip; what it says on standard output."""
    argv = [sys.executable, "-m", "pip", *map(str, words), "--disable-pip-version-check", "--no-input"]
    return subprocess.run(argv, check=True, text=True, stdout=subprocess.PIPE).stdout


def source() -> list[str]:
    """Where pip takes wheels from."""
    house = os.environ.get("PHASE_WHEELHOUSE")
    if not house:
        return []
    if not Path(house).is_dir():
        sys.exit(f"PHASE_WHEELHOUSE: there is no directory {house}")
    return ["--no-index", "--find-links", str(Path(house).resolve())]


def platform(arch: str) -> list[str]:
    """Options that make pip choose wheels of an architecture, whatever this one is."""
    names = [f"manylinux_2_{minor}_{MACHINES[arch]}" for minor in GLIBC_MINORS]
    names.append(f"manylinux2014_{MACHINES[arch]}")
    words = ["--only-binary=:all:", "--implementation", "cp"]
    words += ["--python-version", PYTHON.removeprefix("python")]
    return words + [word for name in names for word in ("--platform", name)]


def own_wheel(into: Path) -> Path:
    """Phase itself as a wheel. Setuptools comes from where the wheels come from: Debian 12's is too old."""
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", into, *source(), PROJECT)
    return next(into.glob("phase-*.whl"))


def wheels(into: Path, arch: str) -> None:
    """Keep every wheel that `install` asks for."""
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        wheel = own_wheel(Path(temporary))
        words = ["--quiet", "--dest", str(into), *platform(arch), *source()]
        pip("download", *words, wheel, "setuptools>=77")


def install(tree: Path, substvars: Path, arch: str) -> None:
    """Fill `tree`/usr/lib/phase, and say in `substvars` on which of Debian's packages it depends."""
    home = tree / "usr/lib/phase"
    site = home / "lib" / PYTHON / "site-packages"
    shutil.rmtree(home, ignore_errors=True)
    site.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as temporary:
        wheel = own_wheel(Path(temporary))
        pip("install", "--quiet", "--no-compile", "--target", site, *platform(arch), *source(), wheel)
    # Not by `python3 -m venv`: that writes down the directory it was called in.
    (home / "bin").mkdir()
    (home / "bin/python3").symlink_to(f"/usr/bin/{PYTHON}")
    (home / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    # Commands with the shebang of the build, and the place of our own wheel there.
    shutil.rmtree(site / "bin", ignore_errors=True)
    for left in site.glob("*.dist-info/direct_url.json"):
        left.unlink()
    # The harness and the image builders need QEMU and much else: they are used from a checkout.
    for other in ("lab", "boot"):
        shutil.rmtree(site / other, ignore_errors=True)
    for left in site.rglob(".git*"):
        left.unlink()
    compile_all(tree, site)
    depends = [PYTHON, "python3", *(take_from_debian(site, name) for name in sorted(LIBRARIES))]
    with substvars.open("a") as out:
        out.write(f"phase:Depends={', '.join(depends)}\n")
    check(home)


def compile_all(tree: Path, site: Path) -> None:
    """Byte code of what is ours: the version of Python is fixed, and a slow machine needs minutes for it.

    It is never compared with its source, so that the times of files do not matter. Debian's libraries come
    later: they have byte code of their own, and change without us.
    """
    words = ["--invalidation-mode", "unchecked-hash", "-q", "-s", str(tree), "-p", "/", str(site)]
    subprocess.run([sys.executable, "-m", "compileall", *words], check=True)


def take_from_debian(site: Path, name: str) -> str:
    """Put links to Debian's library in the place of a wheel; the dependency that this makes."""
    package, places = LIBRARIES[name]
    for mine in (*places[:-1], f"{name}-*.dist-info"):
        for path in site.glob(mine):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for place in places:
        found = next(DEBIAN_SITE.glob(place), None)
        if found is None:
            sys.exit(f"{package} has no {place} in {DEBIAN_SITE}: is it installed?")
        (site / found.name).symlink_to(found)
    version = subprocess.run(
        ["dpkg-query", "--show", "--showformat", "${Version}", package],
        check=True, text=True, stdout=subprocess.PIPE,
    ).stdout  # fmt: skip
    return f"{package} (>= {version.rpartition('-')[0] or version})"


def check(home: Path) -> None:
    """Everything is there in versions that fit, of Debian's too."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--python", home / "bin/python3", "check"],
        check=False, text=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    if done.returncode:
        sys.exit(
            f"debian/environment.py: libraries do not fit each other:\n{done.stdout}"
            "Where Debian's version is too old, take the library out of LIBRARIES: its wheel comes instead."
        )


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description="The private Python environment of the Debian package.")
    commands = parser.add_subparsers(dest="command", required=True)
    installing = commands.add_parser("install")
    installing.add_argument("tree", type=Path)
    installing.add_argument("substvars", type=Path)
    keeping = commands.add_parser("wheels")
    keeping.add_argument("directory", type=Path)
    for each in (installing, keeping):
        each.add_argument("--arch", choices=MACHINES, required=True)
    arguments = parser.parse_args()
    if arguments.command == "install":
        install(arguments.tree, arguments.substvars, arguments.arch)
    else:
        wheels(arguments.directory, arguments.arch)


if __name__ == "__main__":
    main()
