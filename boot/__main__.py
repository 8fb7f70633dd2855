"""`python -m boot`: build images and say where they are."""

import argparse
import json
import sys

from boot import images
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
    arguments = parser.parse_args()
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


if __name__ == "__main__":
    sys.exit(main())
