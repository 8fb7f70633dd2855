"""`phase fetch`: a verified release, on disk."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from phase import arch as arches
from phase.cli import _options, _release
from phase.cli._dht import dht_option
from phase.cli._tell import Out, note
from phase.discovery import DiscoveryError, discover
from phase.discovery.named import named
from phase.errors import PhaseError
from phase.fetch import FetchReport, Progress
from phase.fetch.here import Here, blobs_in
from phase.mirror.filling import Filling
from phase.mirror.output import Output

if TYPE_CHECKING:
    from phase.release.manifest import Manifest
    from phase.trust import Refreshed


class Wanted(NamedTuple):
    """What is to be fetched.

    Attributes:
        root: the root metadata that is trusted.
        channel: of the release.
        arch: its architecture, canonical.
        deadline: `time.monotonic()` when to give up.
    """

    root: bytes
    channel: str
    arch: str
    deadline: float


@click.command("fetch")
@_release.root_option(required=True)
@_options.option("--output", type=_options.PLACE, required=True, metavar="DIRECTORY", help="To be filled.")
@_options.option(
    "--provider",
    "urls",
    multiple=True,
    metavar="URL",
    standard="those that are found",
    help="A provider to ask; repeat for more.",
)
@_options.option(
    "--have",
    type=_options.PLACE,
    multiple=True,
    metavar="DIRECTORY",
    standard="what --output has",
    help="Another release, or a seed's cache: what it has of this one is copied; repeat for more.",
)
@dht_option
@_options.channel
@_options.arch
@_options.timeout(600.0, 1, 86_400)
@_options.as_json
def command(
    root_file: Path,
    output: Path,
    urls: tuple[str, ...],
    have: tuple[Path, ...],
    dht: tuple[tuple[str, int], ...],
    channel: str,
    arch: str,
    timeout: float,
    as_json: bool,
) -> None:
    """Fetch a release from all providers at once, verify it and keep it.

    The directory then is a repository: `phase serve --artifacts` serves it on. Run again, it
    resumes, and never goes back to an older release. Of a newer release it fetches what is new.
    """
    deadline = time.monotonic() + timeout
    # As on a seed's kernel command line.
    urls = tuple(dict.fromkeys(named(url) for url in urls))
    wanted = Wanted(_release.read_root(root_file), channel, arches.canonical(arch), deadline)
    urls = urls or _found(dht, wanted)
    with Output(output) as place:
        filling = Filling(place, wanted.root, deadline=deadline, tell=note)
        name = wanted.channel, wanted.arch
        # With one there is nothing to add to the error.
        proven = filling.prove(name, urls, refused=_report if len(urls) > 1 else None)
        found = proven.release
        urls = (proven.url, *(url for url in urls if url != proven.url))
        reports = _fetched(place, found, urls, deadline, have)
        filling.keep(name, found, found.metadata)
    _told(reports, found.manifest, wanted, output, Out(as_json))


def _found(dht: tuple[tuple[str, int], ...], wanted: Wanted) -> tuple[str, ...]:
    """Providers on this network, and those that the DHT tells of."""
    seconds = min(wanted.deadline - time.monotonic(), 5.0)
    found = discover(wanted.channel, wanted.arch, dht=dht, timeout=max(seconds, 0.1), gather=0.5)
    if urls := tuple(provider.url for provider in found):
        return urls
    raise DiscoveryError(
        f"no provider of {wanted.channel}/{wanted.arch} was found", hint="Name one with --provider."
    )


def _fetched(
    place: Output, found: "Refreshed", urls: tuple[str, ...], deadline: float, have: tuple[Path, ...]
) -> list[FetchReport]:
    """Fetch all artifacts, one after another."""
    here = Here()
    for directory in (place.path, *have):
        here.add_directory(directory)
    # A file may have parts of one that has just come: a unified kernel image has the kernel.
    here.add_release(found.manifest, blobs_in(place.path))
    artifacts = [artifact for _, artifact in sorted(found.manifest.artifacts.items())]
    liars: set[str] = set()
    with _watched(sum(artifact.length for artifact in artifacts)) as progress:
        return [
            place.fetch(
                artifact, urls, deadline=deadline, progress=progress.artifact(), liars=liars, here=here
            )
            for artifact in artifacts
        ]


def _told(reports: list[FetchReport], manifest: "Manifest", wanted: Wanted, output: Path, out: Out) -> None:
    from phase.cli.facts import Fetched, FetchedArtifact

    length, fetched = sum(each.length for each in reports), sum(each.fetched for each in reports)
    out.facts(
        Fetched(
            channel=wanted.channel,
            arch=wanted.arch,
            version=manifest.version,
            release=manifest.release,
            length=length,
            fetched=fetched,
            artifacts=[
                FetchedArtifact(
                    name=report.name,
                    length=report.length,
                    kept=report.kept,
                    reused=report.reused,
                    sources=report.sources,
                    dropped=report.dropped,
                    seconds=report.seconds,
                )
                for report in reports
            ],
        )
    )
    for report in reports:
        reused = f", {report.reused} copied" if report.reused else ""
        out.line(f"{report.name}: {report.length} bytes, {report.kept} of them kept{reused}, verified")
        for reason in report.dropped.values():
            note(f"{report.name}: given up: {reason}")
    out.line(f"{fetched} of {length} bytes came from providers ({fetched / length:.3f})")
    name = f"{wanted.channel}/{wanted.arch} {manifest.release} (version {manifest.version})"
    out.line(f"{name} is in {output}")


def _report(url: str, error: PhaseError) -> None:
    """Say of one provider, at once, why it is not used."""
    note(f"not from {url}: {error}")


@contextmanager
def _watched(total: int) -> Iterator[Progress]:
    """Say how far it is: on a terminal all the time in one line, elsewhere now and then."""
    if not sys.stderr.isatty():
        yield Progress(total, note, every=10.0)
        return
    try:
        yield Progress(total, lambda line: click.echo(f"\r{line}\x1b[K", nl=False, err=True), every=0.2)
    finally:
        click.echo("\r\x1b[K", nl=False, err=True)
