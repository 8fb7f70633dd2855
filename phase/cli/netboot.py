"""`phase netboot`: tell machines what to boot, beside the network's own DHCP server."""

import dataclasses
import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from phase import arch as arches
from phase.cli import _options, _release
from phase.cli._options import option
from phase.cli._tell import Out, note
from phase.discovery.named import named

if TYPE_CHECKING:
    from phase.netboot.cards import Card
    from phase.netboot.menu import Menu


@click.command("netboot")
@option(
    "--provider", "url", required=True, metavar="URL", help="Provider of the seeds, as machines reach it."
)
@_release.root_option(otherwise="none; what the provider sends is handed out")
@option("--channel", default="seed", metavar="NAME", help="Channel of the seeds.")
@option(
    "--arch",
    "wanted",
    multiple=True,
    metavar="NAME",
    standard="all that the provider has",
    help="Architecture to answer; repeat for more.",
)
@option(
    "--interface",
    "interfaces",
    multiple=True,
    metavar="NAME",
    standard="the only one",
    help="Interface to answer on; repeat for more.",
)
@option(
    "--bind",
    "binds",
    multiple=True,
    metavar="ADDRESS",
    help="The same by an IPv4 address of it, which is answered from; repeat for more.",
)
@option(
    "--ipxe",
    multiple=True,
    metavar="NAME=FILE",
    help="iPXE to hand out in place of the seed, for an architecture or for `bios`; repeat for more.",
)
@option("--no-tftp", is_flag=True, help="Serve no files: tell only who fetches by HTTP.")
@option(
    "--every",
    type=_options.Seconds(1, 86_400),
    default=60.0,
    unit="s",
    metavar="SECONDS",
    help="From one look at the provider's seeds to the next.",
)
@_options.as_json
def command(
    url: str,
    root_file: Path | None,
    channel: str,
    wanted: tuple[str, ...],
    interfaces: tuple[str, ...],
    binds: tuple[str, ...],
    ipxe: tuple[str, ...],
    no_tftp: bool,
    every: float,
    as_json: bool,
) -> None:
    """Tell machines that boot by PXE or UEFI HTTP boot to start a provider's seed.

    It gives no addresses: the DHCP server of the network stays as it is. It serves the seed by TFTP, too.
    """
    from phase.cli.serve import end_in_time, log_to_stderr
    from phase.fetch.http import parse_url
    from phase.netboot import cards, service
    from phase.netboot.proven import Proven

    if no_tftp and ipxe:
        raise click.UsageError("--no-tftp leaves no way to hand out --ipxe")
    names = tuple(dict.fromkeys(arches.canonical(name) for name in wanted)) or arches.ARCHES
    provider = parse_url(named(url))
    root = _release.read_root(root_file) if root_file is not None else None
    options = service.Options(
        url=provider,
        channel=channel,
        arches=names,
        cards=functools.partial(cards.chosen, interfaces, binds),
        ipxe=dict(_program(given) for given in ipxe),
        tftp=not no_tftp,
        every=every,
    )
    log_to_stderr()
    with tempfile.TemporaryDirectory(prefix="phase-netboot-") as place:
        if root is not None:
            proven = Proven(root, provider.text, channel, Path(place), tell=note)
            options = dataclasses.replace(options, proven=proven.image)
        service.run(
            options,
            ready=lambda menu: _ready(menu, options.cards(), names, Out(as_json)),
            stopping=end_in_time,
        )


def _program(given: str) -> tuple[str, bytes]:
    from phase.netboot.menu import BIOS, program

    name, equals, path = given.partition("=")
    if not equals or not path:
        raise click.BadParameter(f"{given!r} is not NAME=FILE", param_hint="--ipxe")
    name = name if name == BIOS else arches.canonical(name)
    return name, program(name, Path(path))


def _ready(menu: "Menu", cards: "Sequence[Card]", wanted: tuple[str, ...], out: Out) -> None:
    from phase.cli.facts import Netbooting

    for arch in wanted:
        if arch not in menu.seeds:
            note(f"{menu.url.text} has no seed for {arch} in the channel {menu.channel}: none is told")
        elif not menu.seeds[arch].script:
            note(f"{menu.url.text} has no boot.ipxe for {arch}: machines with iPXE are told nothing")
    where = [f"{card.name} ({card.address.ip})" for card in cards]
    out.facts(
        Netbooting(
            provider=menu.url.text,
            channel=menu.channel,
            arches=sorted(menu.seeds),
            interfaces=[card.name for card in cards],
            addresses=[str(card.address.ip) for card in cards],
        )
    )
    out.line(
        f"seeds of {menu.url.text} for {' and '.join(sorted(menu.seeds))} are told on {' and '.join(where)}"
    )
