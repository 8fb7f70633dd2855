"""`phase fetch`: a verified release, on disk."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from phase import arch as arches
from phase import files
from phase.cli import _release, printable
from phase.cli._dht import dht_option
from phase.cli._output import Output
from phase.discovery import DiscoveryError, discover
from phase.discovery.named import named
from phase.errors import PhaseError
from phase.fetch import Progress

if TYPE_CHECKING:
    from phase.trust import Floor, Refreshed


@click.command("fetch")
@click.option("--root", type=click.Path(path_type=Path), required=True, help="Trusted root metadata.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Directory to fill.")
@click.option("--provider", "urls", multiple=True, help="A provider's URL; repeat for more.")
@dht_option
@click.option("--channel", default="stable", show_default=True)
@click.option("--arch", default="auto", show_default=True, help="Architecture; auto is this machine's.")
@click.option("--timeout", type=click.FloatRange(1, 86_400), default=600.0, help="Seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def command(
    root: Path,
    output: Path,
    urls: tuple[str, ...],
    dht: tuple[tuple[str, int], ...],
    channel: str,
    arch: str,
    timeout: float,
    as_json: bool,
) -> None:
    """Fetch a release from all providers at once, verify it and keep it.

    The directory then is a repository: `phase serve --artifacts` serves it on. Run again, it
    resumes, and never goes back to an older release.
    """
    from phase.fetch.release import refresh_from
    from phase.trust import floor

    wanted = arches.canonical(arch)
    deadline = time.monotonic() + timeout
    # As on a seed's kernel command line.
    urls = tuple(dict.fromkeys(named(url) for url in urls))
    trusted = _release.read_root(root)
    if not urls:
        urls = tuple(
            p.url for p in discover(channel, wanted, dht=dht, timeout=min(timeout, 5.0), gather=0.5)
        )
    if not urls:
        raise DiscoveryError(
            f"no provider of {channel}/{wanted} was found", hint="Name one with --provider."
        )
    with Output(output) as place:
        publisher = floor.publisher(trusted)
        known = floor.load_all(output, publisher, directory=place.descriptor)
        for why in known.unreadable:
            _tell(f"not of this publisher, and passed over: {why}")
        proven = refresh_from(
            urls,
            trusted,
            channel=channel,
            arch=wanted,
            now=_release.now(known.own.time),
            deadline=deadline,
            floor=known.own,
            others=known.others,
            # With one there is nothing to add to the error below.
            refused=_report if len(urls) > 1 else None,
        )
        found = proven.release
        urls = (proven.url, *(url for url in urls if url != proven.url))
        still = _Still(place, trusted, channel, wanted, found)
        # Before anything else: a release once seen is the least there may ever be again.
        with place.locked(deadline, _tell), place.writing():
            still.newest(known.own)
            for name in floor.keep(output, publisher, found.floor, known, directory=place.descriptor):
                _tell(
                    f"{output / name} is removed: more than {floor.MAX_PUBLISHERS} publishers are kept there"
                )
        artifacts = [artifact for _, artifact in sorted(found.manifest.artifacts.items())]
        with _told(sum(artifact.length for artifact in artifacts)) as progress:
            liars: set[str] = set()
            reports = [
                place.fetch(artifact, urls, deadline=deadline, progress=progress.artifact(), liars=liars)
                for artifact in artifacts
            ]
        with place.locked(max(deadline, time.monotonic() + 5), _tell):
            still.newest(found.floor)
            # The timestamp last: who serves this directory meanwhile sees the old release or the new one.
            with place.below("metadata") as metadata, place.writing("metadata"):
                for name in sorted(found.metadata, key=lambda name: name == "timestamp.json"):
                    files.write_at(metadata, name, found.metadata[name])
            place.sweep()
            files.sync(place.descriptor)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "channel": channel,
                    "arch": wanted,
                    "version": found.manifest.version,
                    "release": found.manifest.release,
                    "artifacts": [report._asdict() for report in reports],
                }
            )
        )
        return
    for report in reports:
        click.echo(f"{report.name}: {report.length} bytes, {report.kept} of them kept, verified")
        for reason in report.dropped.values():
            click.echo(f"  given up: {printable(reason)}", err=True)
    name = f"{channel}/{wanted} {found.manifest.release} (version {found.manifest.version})"
    click.echo(printable(f"{name} is in {output}"))


def _report(url: str, error: PhaseError) -> None:
    """Say of one provider, at once, why it is not used."""
    click.echo(f"not from {printable(url)}: {printable(str(error))}", err=True)


def _tell(line: str) -> None:
    click.echo(printable(line), err=True)


class _Still(NamedTuple):
    """Whether what was proven is still the newest that has been seen by anybody who fills a directory."""

    place: Output
    root: bytes
    channel: str
    arch: str
    found: "Refreshed"

    def newest(self, known: "Floor") -> None:
        """Look at the floor of now; it may be another than `known`, since another fetch may have saved one.

        Raises:
            TrustError: another fetch has seen a newer release, which must not be replaced.
        """
        from phase import trust
        from phase.trust import floor

        file = self.place.path / floor.name_of(floor.publisher(self.root))
        now = floor.load(file, directory=self.place.descriptor)
        if now not in (known, self.found.floor):
            metadata = self.found.metadata

            def get(name: str, _: int) -> bytes:
                if name not in metadata:
                    raise trust.NotFoundError(f"there is no {name}")
                return metadata[name]

            trust.refresh(
                self.root,
                get,
                channel=self.channel,
                arch=self.arch,
                now=_release.now(now.time),
                floor=now,
            )


@contextmanager
def _told(total: int) -> Iterator[Progress]:
    """Say how far it is: on a terminal all the time in one line, elsewhere now and then."""
    if not sys.stderr.isatty():
        yield Progress(total, lambda line: click.echo(line, err=True), every=10.0)
        return
    try:
        yield Progress(total, lambda line: click.echo(f"\r{line}\x1b[K", nl=False, err=True), every=0.2)
    finally:
        click.echo("\r\x1b[K", nl=False, err=True)
