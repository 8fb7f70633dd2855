"""`python -m boot`: build images and say where they are."""

import argparse
import json
import os
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

try:
    from boot import images, uki
    from boot.errors import BuildError
    from phase.errors import PhaseError
    from phase.release import check
    from phase.trust import Floor
    from phase.trust import floor as floors
except ModuleNotFoundError as error:
    sys.exit(
        f"phase: {sys.executable} lacks the module {error.name}. "
        "Use a Python in which `pip install '.[lab]'` was run: docs/use/first-boot.md, step 1."
    )

ARCHES = ("x86_64", "arm64")


def main() -> int:
    """Run the command; 0 done, 1 a build failed (the reason on stderr), 2 usage."""
    parser = argparse.ArgumentParser(prog="python -m boot", description="Build seed and system images.")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="build what is not in the cache yet; print paths")
    build.add_argument("what", nargs="*", choices=["seed", "system", []], help="default: both")
    build.add_argument("--arch", action="append", choices=ARCHES, help="default: both")
    build.add_argument("--refresh", action="store_true", help="take newer packages from the archive")
    build.add_argument("--json", action="store_true", help="print one JSON object")
    seed = commands.add_parser(
        "seed", help="write a seed that trusts a root: kernel, initramfs, cmdline, uki"
    )
    seed.add_argument("--root", type=Path, required=True, help="root metadata of the repository it trusts")
    seed.add_argument("--arch", choices=ARCHES, required=True)
    seed.add_argument("--cmdline", required=True, help="kernel command line")
    seed.add_argument(
        "--allow-shell", action="store_true", help="phase.rescue=shell may give a shell when nothing boots"
    )
    seed.add_argument(
        "--allow-offline", action="store_true", help="what an earlier boot kept may boot without a provider"
    )
    seed.add_argument(
        "--grace",
        action="append",
        default=[],
        type=_grace,
        metavar="MODE=DAYS",
        help="for how long a mode still takes expired timestamps and snapshots; default: not at all",
    )
    seed.add_argument(
        "--floor",
        type=Path,
        metavar="PATH",
        help="take nothing older than this: the repository as it is now, or a floor-*.json of `phase fetch`",
    )
    seed.add_argument("out", type=Path, help="directory to write into")
    system = commands.add_parser(
        "system",
        help="write a system for `release add --artifacts`: kernel, initramfs, rootfs, cmdline",
    )
    system.add_argument("--arch", choices=ARCHES, required=True)
    system.add_argument(
        "--cmdline", default="quiet panic=-1", help="kernel command line to sign; default: %(default)s"
    )
    system.add_argument("out", type=Path, help="directory to write into")
    arguments = parser.parse_args()
    if arguments.command == "seed":
        return _seed(arguments)
    if arguments.command == "system":
        return _system(arguments.arch, arguments.cmdline, arguments.out)
    made: dict[str, dict[str, str]] = {}
    try:
        for arch in arguments.arch or ARCHES:
            for what in arguments.what or ("seed", "system"):
                image = (images.seed if what == "seed" else images.system)(arch, refresh=arguments.refresh)
                made[f"{what}-{arch}"] = {
                    name: str(path) for name, path in image._asdict().items() if name != "arch"
                }
                if not arguments.json:
                    for name, path in made[f"{what}-{arch}"].items():
                        print(f"{what} {arch} {name}: {path}")
    except BuildError as error:
        print(f"boot: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(made, indent=1))
    return 0


def _grace(text: str) -> tuple[str, int]:
    """`MODE=DAYS` as mode and seconds."""
    mode, _, days = text.partition("=")
    if not days.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not MODE=DAYS, for example local=30")
    return mode, int(days) * 86_400


def _floor(path: Path, root: bytes) -> Floor:
    """A floor from a file, or from a repository's newest metadata."""
    if path.is_dir():
        return check.newest(path, root, now=datetime.now(UTC))
    return floors.parse(path.read_bytes(), str(path))


def _seed(arguments: argparse.Namespace) -> int:
    arch: str = arguments.arch
    out: Path = arguments.out
    cmdline: str = arguments.cmdline
    try:
        root: bytes = arguments.root.read_bytes()
        config = images.config(
            root,
            allow_shell=arguments.allow_shell,
            allow_offline=arguments.allow_offline,
            grace=dict(arguments.grace),
            # The variable by which reproducible builds get their time.
            build_time=int(os.environ.get("SOURCE_DATE_EPOCH") or time.time()),
            floor=_floor(arguments.floor, root) if arguments.floor else None,
        )
        image = images.seed(arch)
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(image.kernel, out / "kernel")
        (out / "initramfs").write_bytes(image.initramfs.read_bytes() + config)
        (out / "cmdline").write_text(f"{cmdline}\n")
        uki.build(uki.stub(arch), out / "kernel", out / "initramfs", cmdline, out / "uki")
    except (BuildError, PhaseError, OSError) as error:
        print(f"boot: {error}", file=sys.stderr)
        return 1
    for name in ("kernel", "initramfs", "cmdline", "uki"):
        print(out / name)
    return 0


def _system(arch: str, cmdline: str, out: Path) -> int:
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, path in images.system(arch).artifacts().items():
            shutil.copyfile(path, out / name)
            print(out / name)
        (out / "cmdline").write_text(f"{cmdline}\n")
    except (BuildError, OSError) as error:
        print(f"boot: {error}", file=sys.stderr)
        return 1
    print(out / "cmdline")
    return 0


if __name__ == "__main__":
    sys.exit(main())
