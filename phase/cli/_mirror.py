"""The options that make a mirror of `phase serve`: whom it follows, by which root, and what of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from phase import arch as arches
from phase import modes
from phase.cli import _options, _release
from phase.cli._tell import note
from phase.discovery.named import named
from phase.errors import PhaseError

if TYPE_CHECKING:
    from phase.mirror.filling import Name
    from phase.mirror.mirror import Providers

#: In place of an address: those that discovery finds.
FOUND = "found"


@dataclass(frozen=True)
class Following:
    """What a mirror was told. As the options are called."""

    follow: tuple[str, ...]
    root_file: Path | None
    mirror: tuple["Name", ...]
    every: float


def _names(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> tuple["Name", ...]:
    from phase.release.errors import ManifestError
    from phase.release.manifest import role_name

    found = []
    for text in texts:
        channel, slash, arch = text.partition("/")
        try:
            if not slash:
                raise click.BadParameter(f"{text!r} is not CHANNEL/ARCH, such as stable/arm64")
            name = channel, arches.canonical(arch)
            role_name(*name)
        except (ManifestError, PhaseError) as error:
            raise click.BadParameter(str(error)) from error
        found.append(name)
    return tuple(found)


mirror_options = partial(
    _options.grouped,
    "following",
    Following,
    _options.option(
        "--follow",
        multiple=True,
        metavar="URL",
        help="Keep the directory as this provider has it, fetched whole and verified; repeat for more. "
        f"`{FOUND}`: those that discovery finds.",
    ),
    _release.root_option(otherwise="none; --follow needs one"),
    _options.option(
        "--mirror",
        multiple=True,
        metavar="CHANNEL/ARCH",
        standard="all that --follow has",
        callback=_names,
        help="What to keep of it; repeat for more.",
    ),
    _options.option(
        "--every",
        type=_options.Seconds(1, 86_400),
        default=300.0,
        unit="s",
        metavar="SECONDS",
        help="From one look at it to the next.",
    ),
)


def begin(
    directory: Path,
    following: Following,
    own: "Name",
    mode: modes.Mode,
    *,
    mdns: bool,
    dht: Sequence[tuple[str, int]],
) -> Callable[[], None]:
    """Make sure that there is something to serve; what keeps it up to date from then on.

    Args:
        directory: to be kept.
        following: what was told.
        own: channel and architecture of the release at `/manifest.json`.
        mode: of this machine.
        mdns: whether discovery may ask the local network.
        dht: nodes through which it may ask the DHT.

    Raises:
        PhaseError: nothing is there yet, and nothing could be fetched.
    """
    from phase.fetch.way import DIRECT
    from phase.mirror.mirror import Mirror

    if following.root_file is None:
        raise click.UsageError("--follow needs --root: without one, nothing of a provider can be verified")
    mirror = Mirror(
        directory,
        _release.read_root(following.root_file),
        following.mirror or (own,),
        everything=not following.mirror,
        providers=_providers(following.follow, mdns=mdns, dht=dht),
        way=DIRECT if mode.beyond else DIRECT._replace(lonely=mode.name),
        tell=note,
    )
    mirror.check()
    if not (directory / "metadata" / "timestamp.json").exists():
        mirror.round()
    return mirror.round


def _providers(follow: tuple[str, ...], *, mdns: bool, dht: Sequence[tuple[str, int]]) -> "Providers":
    from phase.mirror import mirror

    if FOUND in follow:
        return mirror.found([named(url) for url in follow if url != FOUND], mdns=mdns, dht=dht)
    return mirror.named([named(url) for url in follow])
