"""What a person bakes into a seed: whom it trusts first, and what it may do."""

import argparse
import os
import time
from datetime import UTC, datetime
from pathlib import Path

from boot import images
from boot.errors import BuildError
from phase import cmdline, modes
from phase.release import check
from phase.trust import Floor
from phase.trust import floor as floors


def add_options(parser: argparse.ArgumentParser, *, root_required: bool) -> None:
    """Add the options that say it.

    Args:
        parser: of a command that writes seeds.
        root_required: whether each use of that command writes one.
    """
    parser.add_argument(
        "--root",
        type=Path,
        required=root_required,
        metavar="FILE",
        help="root metadata of the repository that the seed trusts",
    )
    parser.add_argument(
        "--allow-shell", action="store_true", help="phase.rescue=shell may give a shell when nothing boots"
    )
    parser.add_argument(
        "--allow-offline", action="store_true", help="what an earlier boot kept may boot without a provider"
    )
    parser.add_argument(
        "--grace",
        action="append",
        default=[],
        type=_grace,
        metavar="MODE=DAYS",
        help="for how long a mode still takes expired timestamps and snapshots; default: not at all",
    )
    parser.add_argument(
        "--floor",
        type=Path,
        metavar="PATH",
        help="take nothing older than this: the repository as it is now, or a floor-*.json of `phase fetch`",
    )
    parser.add_argument(
        "--tor", action="store_true", help="put Tor into it, for phase.mode=private without phase.tor="
    )
    parser.add_argument("--torrc", type=Path, metavar="FILE", help="more lines for that Tor's configuration")


def initramfs(arch: str, config: bytes, *, tor: bool) -> bytes:
    """A seed's whole initramfs.

    Args:
        arch: `x86_64` or `arm64`.
        config: from `config`.
        tor: whether it has Tor.
    """
    own = images.tor(arch).archive.read_bytes() if tor else b""
    return images.seed(arch).initramfs.read_bytes() + own + config


def config(arguments: argparse.Namespace, now: int) -> bytes:
    """The archive to append to a seed's initramfs, as these options say.

    Args:
        arguments: the options.
        now: from `build_time`.

    Raises:
        BuildError: an option cannot be.
        PhaseError: the floor cannot be used.
        OSError: a file cannot be read.
    """
    root: bytes = arguments.root.read_bytes()
    return images.config(
        root,
        allow_shell=arguments.allow_shell,
        allow_offline=arguments.allow_offline,
        grace=dict(arguments.grace),
        build_time=now,
        floor=read_floor(arguments.floor, root, now) if arguments.floor else None,
        torrc=arguments.torrc.read_bytes() if arguments.torrc else b"",
    )


def check_private(line: str, *, tor: bool) -> None:
    """Refuse a seed that could fetch nothing.

    Args:
        line: its kernel command line.
        tor: whether it has Tor.

    Raises:
        BuildError: it boots in private mode, and has no way to Tor.
    """
    parameters = cmdline.parse(line)
    if not (modes.of(parameters.mode).direct or parameters.tor or tor):
        raise BuildError(
            f"{parameters.mode} mode fetches through Tor alone, and this seed has none",
            hint="Add --tor, or phase.tor=ADDRESS:PORT to --cmdline.",
        )


def build_time() -> int:
    """Unix seconds: `SOURCE_DATE_EPOCH`, by which a build can be repeated, otherwise now.

    Raises:
        BuildError: the variable is not a number of seconds.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return int(time.time())
    if not (text.isascii() and text.isdecimal() and len(text) <= 11):
        raise BuildError(f"SOURCE_DATE_EPOCH is {text!r}; it is whole seconds since 1970")
    return int(text)


def read_floor(path: Path, root: bytes, now: int) -> Floor:
    """A floor from a file, or from a repository's newest metadata.

    Args:
        path: the file, or the repository's directory.
        root: the repository's first root.
        now: Unix seconds.
    """
    if path.is_dir():
        return check.newest(path, root, now=datetime.fromtimestamp(now, UTC))
    return floors.parse(path.read_bytes(), str(path))


def _grace(text: str) -> tuple[str, int]:
    """`MODE=DAYS` as mode and seconds."""
    mode, _, days = text.partition("=")
    if not days.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not MODE=DAYS, for example local=30")
    return mode, int(days) * 86_400
