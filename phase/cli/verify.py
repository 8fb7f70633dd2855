"""`phase verify`: is what lies here still what was signed?"""

import hashlib
import json
from pathlib import Path

import click

from phase import arch as arches
from phase.cli import _release
from phase.fetch import VerificationError


@click.command("verify")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--root", type=click.Path(path_type=Path), required=True, help="Trusted root metadata.")
@click.option("--channel", default="stable", show_default=True)
@click.option("--arch", default="auto", show_default=True, help="Architecture; auto is this machine's.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def command(directory: Path, root: Path, channel: str, arch: str, as_json: bool) -> None:
    """Verify a fetched release in DIRECTORY: signatures, expiry, versions, every byte."""
    from phase.trust import NotFoundError, floor, refresh

    metadata = directory / "metadata"

    def get(name: str, max_bytes: int) -> bytes:
        try:
            with (metadata / name).open("rb") as handle:
                return handle.read(max_bytes + 1)
        except FileNotFoundError:
            raise NotFoundError(f"{metadata} has no {name}") from None
        except OSError as error:
            raise VerificationError(f"{metadata / name} cannot be read: {error.strerror}") from error

    found = refresh(
        _release.read_root(root),
        get,
        channel=channel,
        arch=arches.canonical(arch),
        now=_release.now(),
        floor=floor.load(directory / _release.FLOOR),
    )
    for name, artifact in sorted(found.manifest.artifacts.items()):
        path = _release.blob_path(directory, artifact.sha256)
        try:
            with path.open("rb") as handle:
                digest = hashlib.file_digest(handle, "sha256").hexdigest()
        except OSError as error:
            raise VerificationError(f"{name}: {path} cannot be read: {error.strerror}") from error
        if digest != artifact.sha256:
            raise VerificationError(
                f"{name}: {path} is not the signed file: expected sha256 {artifact.sha256}, found {digest}",
                hint="Run `phase fetch` again.",
            )
    manifest = found.manifest
    if as_json:
        facts = {"channel": channel, "arch": manifest.arch, "version": manifest.version}
        facts |= {"release": manifest.release, "artifacts": sorted(manifest.artifacts)}
        click.echo(json.dumps(facts))
    else:
        name = f"{channel}/{manifest.arch} {manifest.release} (version {manifest.version})"
        click.echo(f"{name} is as it was signed")
