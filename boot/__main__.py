"""`python -m boot`: build images and media, and say where they are."""

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

try:
    from boot import baked, images, signing, uki
    from boot.errors import BuildError
    from boot.media import command as media
    from boot.media import write
    from phase.errors import PhaseError
except ModuleNotFoundError as error:
    sys.exit(
        f"phase: {sys.executable} lacks the module {error.name}. "
        "Use a Python in which `pip install '.[lab]'` was run: docs/use/first-boot.md, step 1."
    )

ARCHES = ("x86_64", "arm64")
IMAGES: dict[str, Callable[..., images.Seed | images.System]] = {
    "seed": images.seed,
    "system": images.system,
}


def main() -> int:
    """Run the command; 0 done, 1 a build failed (the reason on stderr), 2 usage."""
    parser = argparse.ArgumentParser(prog="python -m boot", description="Build images, and media with them.")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_build(commands.add_parser("build", help="build images and print their paths, or build a medium"))
    _add_seed(
        commands.add_parser("seed", help="write a seed that trusts a root: kernel, initramfs, cmdline, uki")
    )
    _add_system(
        commands.add_parser(
            "system",
            help="write a system for `release add --artifacts`: kernel, initramfs, rootfs, cmdline",
        )
    )
    _add_write(commands.add_parser("write", help="write a medium to a device, and compare"))
    arguments = parser.parse_args()
    try:
        return _COMMANDS[arguments.command](parser, arguments)
    except (BuildError, PhaseError, OSError) as error:
        print(f"boot: {error}", file=sys.stderr)
        return 1


def _add_build(build: argparse.ArgumentParser) -> None:
    build.add_argument(
        "what",
        nargs="*",
        choices=[*IMAGES, *media.KINDS, []],
        metavar="WHAT",
        help=f"images: {', '.join(IMAGES)} (both when left out); or one medium: {', '.join(media.KINDS)}",
    )
    build.add_argument("--arch", action="append", choices=[*ARCHES, "both"], help="default: both")
    build.add_argument("--refresh", action="store_true", help="take newer packages from the archive")
    build.add_argument("--json", action="store_true", help="print one JSON object")
    media.add_options(build)


def _add_seed(seed: argparse.ArgumentParser) -> None:
    seed.add_argument("--arch", choices=ARCHES, required=True)
    seed.add_argument("--cmdline", required=True, help="kernel command line")
    baked.add_options(seed, root_required=True)
    signing.add_options(seed)
    seed.add_argument("out", type=Path, help="directory to write into")


def _add_system(system: argparse.ArgumentParser) -> None:
    system.add_argument("--arch", choices=ARCHES, required=True)
    system.add_argument(
        "--cmdline", default="quiet panic=-1", help="kernel command line to sign; default: %(default)s"
    )
    signing.add_options(system, "kernel")
    system.add_argument("out", type=Path, help="directory to write into")


def _add_write(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="from `build usb` or `build iso`")
    parser.add_argument("device", type=Path, help="a whole device, such as /dev/sdb; all of it is erased")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def _build(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    given = arguments.arch or ["both"]
    arches = tuple(arch for arch in ARCHES if arch in given or "both" in given)
    if set(arguments.what) & set(media.KINDS):
        _medium(parser, arguments, arches)
        return 0
    if given := media.given(arguments):
        parser.error(
            f"{', '.join(given)}: for a medium ({', '.join(media.KINDS)}); "
            "`python -m boot seed` writes a seed with what it trusts and may do"
        )
    made: dict[str, dict[str, str]] = {}
    for arch in arches:
        for what in arguments.what or IMAGES:
            image = IMAGES[what](arch, refresh=arguments.refresh)
            made[f"{what}-{arch}"] = {
                name: str(path) for name, path in image._asdict().items() if name != "arch"
            }
            if not arguments.json:
                for name, path in made[f"{what}-{arch}"].items():
                    print(f"{what} {arch} {name}: {path}")
    if arguments.json:
        print(json.dumps(made, indent=1))
    return 0


def _medium(parser: argparse.ArgumentParser, arguments: argparse.Namespace, arches: tuple[str, ...]) -> None:
    if len(arguments.what) > 1:
        parser.error(f"one medium at a time, and nothing beside it: {' '.join(arguments.what)}")
    if not arguments.out or not arguments.root:
        parser.error("a medium needs --out FILE, where to write it, and --root FILE, whom it trusts")
    media.run(arguments.what[0], arches, arguments)


def _seed(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    arch: str = arguments.arch
    out: Path = arguments.out
    cmdline: str = arguments.cmdline
    baked.check_private(cmdline, tor=arguments.tor)
    config = baked.config(arguments, baked.build_time())
    signer = signing.chosen(arguments)
    image = images.seed(arch)
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(image.kernel, out / "kernel")
    (out / "initramfs").write_bytes(baked.initramfs(arch, config, tor=arguments.tor))
    (out / "cmdline").write_text(f"{cmdline}\n")
    uki.build(uki.stub(arch), out / "kernel", out / "initramfs", cmdline, out / "uki", signer)
    for name in ("kernel", "initramfs", "cmdline", "uki"):
        print(out / name)
    return 0


def _system(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    out: Path = arguments.out
    signer = signing.chosen(arguments)
    system = images.system(arguments.arch)
    out.mkdir(parents=True, exist_ok=True)
    for name, path in system.artifacts().items():
        shutil.copyfile(path, out / name)
        if signer is not None and name == "kernel":
            signing.sign(out / name, signer)
        print(out / name)
    (out / "cmdline").write_text(f"{arguments.cmdline}\n")
    print(out / "cmdline")
    return 0


def _write(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    sure = (lambda device, medium: True) if arguments.yes else write.ask
    if not write.write(arguments.file, arguments.device, sure=sure):
        print("boot: nothing was written", file=sys.stderr)
        return 1
    print(f"{arguments.device} holds {arguments.file}, read back and compared")
    return 0


_COMMANDS = {"build": _build, "seed": _seed, "system": _system, "write": _write}

if __name__ == "__main__":
    sys.exit(main())
