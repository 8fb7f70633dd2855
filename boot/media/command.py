"""`python -m boot build usb`: the options of media."""

import argparse
import re
from pathlib import Path

from boot import baked, images, programs, signing
from boot.media import build, line, served
from boot.media.build import Plan
from phase import cmdline

#: The tree is a directory, and no file that a machine boots from by itself.
TREE = "netboot"
KINDS = (*build.KINDS, TREE)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that media have, beside `--arch`."""
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="of a medium: the file to write, of netboot a directory"
    )
    parser.add_argument(
        "--channel",
        default="stable",
        help="of a medium: channel of the releases it boots; default: %(default)s",
    )
    parser.add_argument(
        "--mode", default=cmdline.MODES[0], choices=cmdline.MODES, help="of a medium; default: %(default)s"
    )
    parser.add_argument("--cmdline", default="", help="of a medium: more words for the kernel command line")
    parser.add_argument(
        "--loader",
        default=build.LOADERS[0],
        choices=build.LOADERS,
        help="of a medium: what offers the modes; uki: no menu; default: %(default)s",
    )
    parser.add_argument(
        "--cache",
        type=_size,
        default=0,
        metavar="SIZE",
        help="of a usb or qcow2: a partition for releases, such as 512M or 2G; default: none",
    )
    baked.add_options(parser, root_required=False)
    signing.add_options(parser)


def given(arguments: argparse.Namespace) -> list[str]:
    """The options of media that were given, and not as they are when left out."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    return [
        f"--{name.replace('_', '-')}"
        for name, usual in vars(parser.parse_args([])).items()
        if getattr(arguments, name) != usual
    ]


def run(kind: str, arches: tuple[str, ...], arguments: argparse.Namespace) -> None:
    """Build one medium.

    Args:
        kind: one of `KINDS`.
        arches: for which machines.
        arguments: the options.

    Raises:
        BuildError: it cannot be built.
        PhaseError: what is baked in cannot be.
        OSError: a file cannot be read or written.
    """
    for arch in arches:
        baked.check_private(
            line.compose(arch, channel=arguments.channel, mode=arguments.mode, words=arguments.cmdline),
            tor=arguments.tor,
        )
    for arch in arches if arguments.refresh else ():
        images.seed(arch, refresh=True)
        programs.get("stub" if arguments.loader == "uki" else arguments.loader, arch, refresh=True)
        if arguments.tor:
            images.tor(arch, refresh=True)
    now = baked.build_time()
    plan = Plan(
        arches,
        baked.config(arguments, now),
        arguments.channel,
        arguments.mode,
        arguments.cmdline,
        arguments.loader,
        arguments.cache,
        now,
        arguments.tor,
        signing.chosen(arguments),
    )
    made = served.make(plan, arguments.out) if kind == TREE else build.build(kind, plan, arguments.out)
    for path in made:
        print(path)


def _size(text: str) -> int:
    """A size such as `512M` as bytes."""
    found = re.fullmatch(r"([1-9][0-9]{0,5})([MG])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size, such as 512M or 2G")
    return int(found[1]) << {"M": 20, "G": 30}[found[2]]
