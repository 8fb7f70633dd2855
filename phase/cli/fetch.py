"""`phase fetch`: a verified release, on disk."""

import errno
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from phase import arch as arches
from phase import files
from phase.cli import _release, printable
from phase.cli._dht import dht_option
from phase.discovery import DiscoveryError, discover
from phase.errors import PhaseError
from phase.fetch import FetchReport, Progress, fetch_artifact
from phase.release.manifest import Artifact


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
    if not urls:
        urls = tuple(
            p.url for p in discover(channel, wanted, dht=dht, timeout=min(timeout, 5.0), gather=0.5)
        )
    if not urls:
        raise DiscoveryError(
            f"no provider of {channel}/{wanted} was found", hint="Name one with --provider."
        )
    known = floor.load(output / _release.FLOOR)
    proven = refresh_from(
        urls,
        _release.read_root(root),
        channel=channel,
        arch=wanted,
        now=_release.now(known.time),
        deadline=deadline,
        floor=known,
        # With one there is nothing to add to the error below.
        refused=_report if len(urls) > 1 else None,
    )
    found = proven.release
    urls = (proven.url, *(url for url in urls if url != proven.url))
    with _written(output):
        # Before anything else: a release once seen is the least there may ever be again.
        floor.save(output / _release.FLOOR, floor.replacing(found.floor, known))
        artifacts = [artifact for _, artifact in sorted(found.manifest.artifacts.items())]
        with _told(sum(artifact.length for artifact in artifacts)) as progress:
            liars: set[str] = set()
            reports = [_fetch(artifact, urls, liars, output, deadline, progress) for artifact in artifacts]
        (output / "metadata").mkdir(exist_ok=True)
        # The timestamp last: whoever serves this directory meanwhile sees the old release or the new one.
        for name in sorted(found.metadata, key=lambda name: name == "timestamp.json"):
            files.write(output / "metadata" / name, found.metadata[name])
        files.sync_directory(output)
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


@contextmanager
def _written(output: Path) -> Iterator[None]:
    """Say where it was that something could not be written, and what helps."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise PhaseError(
            f"{error.filename or output} cannot be written: {error.strerror or error}",
            hint="Make room there, or give another --output; what has arrived is kept." if full else "",
        ) from error


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


def _fetch(
    artifact: Artifact,
    urls: tuple[str, ...],
    liars: set[str],
    output: Path,
    deadline: float,
    progress: Progress,
) -> FetchReport:
    final = _release.blob_path(output, artifact.sha256)
    final.parent.mkdir(parents=True, exist_ok=True)
    # What is there is checked like what comes from the network, and fetched where it is wrong.
    part = final if final.exists() else final.with_name(f".{artifact.sha256}.part")
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        report = fetch_artifact(
            artifact,
            urls,
            descriptor,
            deadline=deadline,
            progress=progress.artifact(),
            resume=True,
            liars=liars,
        )
        os.ftruncate(descriptor, artifact.length)
        # On the disk before anything there says that it is: after a power cut it may be served on.
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    part.replace(final)
    files.sync_up(final.parent, output)
    return report
