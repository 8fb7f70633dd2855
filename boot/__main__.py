"""`python -m boot`: build images and say where they are."""

import argparse
import json
import shutil
import sys
from pathlib import Path

from boot import images, uki
from boot.errors import BuildError

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
    seed.add_argument("out", type=Path, help="directory to write into")
    arguments = parser.parse_args()
    if arguments.command == "seed":
        return _seed(arguments.arch, arguments.root, arguments.cmdline, arguments.out)
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


def _seed(arch: str, root: Path, cmdline: str, out: Path) -> int:
    try:
        image = images.seed(arch)
        config = images.config(root.read_bytes())
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(image.kernel, out / "kernel")
        (out / "initramfs").write_bytes(image.initramfs.read_bytes() + config)
        (out / "cmdline").write_text(f"{cmdline}\n")
        uki.build(uki.stub(arch), out / "kernel", out / "initramfs", cmdline, out / "uki")
    except (BuildError, OSError) as error:
        print(f"boot: {error}", file=sys.stderr)
        return 1
    for name in ("kernel", "initramfs", "cmdline", "uki"):
        print(out / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
