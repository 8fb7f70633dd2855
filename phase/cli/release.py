"""`phase release`: publish what machines boot."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from phase import arch as arches
from phase.cli import (
    _artifacts,
    _ceremony,
    _keys,
    _options,
    _predict,
    _publishing,
    _release,
    _signing,
    _upkeep,
)
from phase.cli._options import FILE, option
from phase.cli._signing import Signer
from phase.cli._tell import Out, note
from phase.errors import PhaseError
from phase.release.keys import ROLES

if TYPE_CHECKING:
    from phase.release.check import Judged


@click.group("release")
def command() -> None:
    """Sign releases and publish them, as a tree of files any web server can serve."""


for each in (*_ceremony.COMMANDS, *_keys.COMMANDS, *_predict.COMMANDS, *_upkeep.COMMANDS):
    command.add_command(each)


@dataclass(frozen=True)
class Content:
    """What a release is made of, as the options of `phase release add` say it."""

    artifacts: Path | None
    kernel: Path | None
    initramfs: Path | None
    rootfs: Path | None
    dtbs: tuple[Path, ...]
    cmdline: str | None
    force: bool

    def gathered(self, arch: str, out: Out) -> dict[str, Path]:
        """The files by artifact; each is looked at, and `out` is told what it is."""
        given = {"kernel": self.kernel, "initramfs": self.initramfs, "rootfs": self.rootfs}
        found = _artifacts.gathered(self.artifacts, given, self.dtbs)
        _artifacts.check(found, arches.canonical(arch), out, force=self.force)
        return found

    def line(self) -> str:
        """The kernel command line."""
        from phase.release.artifacts import read_cmdline

        if self.cmdline is None and self.artifacts is not None:
            return read_cmdline(self.artifacts) or ""
        return self.cmdline or ""


def _file(name: str) -> Callable[[Any], Any]:
    return option(f"--{name}", once=True, type=FILE, metavar="FILE", help=f"The {name} of the release.")


_content = _options.grouped(
    "content",
    Content,
    option(
        "--artifacts",
        type=_options.DIRECTORY,
        metavar="DIRECTORY",
        help="Take the files from here, under their usual names.",
    ),
    _file("kernel"),
    _file("initramfs"),
    _file("rootfs"),
    option(
        "--dtb",
        "dtbs",
        once=True,
        multiple=True,
        type=FILE,
        metavar="FILE",
        help="A device tree; repeat for more.",
    ),
    option(
        "--cmdline",
        once=True,
        metavar="TEXT",
        standard="the file `cmdline` of --artifacts, else empty",
        help="Kernel command line to sign.",
    ),
    option(
        "--force", once=True, is_flag=True, help="Sign files that do not look like what they are called."
    ),
)


@command.command("add")
@_signing.directory
@click.argument("channel")
@click.argument("arch")
@_content
@option(
    "--release", "version", once=True, required=True, metavar="TEXT", help="The version people speak of."
)
@option(
    "--days",
    type=click.FloatRange(0.01, 3650),
    metavar="DAYS",
    standard="180 days",
    help="How long the release holds, also when it is renewed.",
)
@option(
    "--fall-back",
    is_flag=True,
    once=True,
    help="Name the release that is published now: where this one does not come up, machines with a cache "
    "start that one.",
)
@_signing.hold
@_signing.signer
@_options.as_json
def add(
    directory: Path,
    channel: str,
    arch: str,
    content: Content,
    version: str,
    days: float | None,
    fall_back: bool,
    hold: bool,
    signer: Signer,
    as_json: bool,
) -> None:
    """Make files the release of CHANNEL for ARCH; they are copied."""
    from phase.release.repository import Repository

    if days is not None and not math.isfinite(days):
        raise click.UsageError(f"--days {days} is not a number of days")
    out = Out(as_json)
    found, line = content.gathered(arch, out), content.line()
    _artifacts.warn(found, line)
    known = (channel, arches.canonical(arch)) in Repository.open(directory).releases()
    keys = signer.load(("release", "snapshot", "timestamp") if known else ROLES[1:])
    with _publishing.opened(directory, signer, keys) as repository:
        repository.add(channel, arch, found, cmdline=line, release=version, days=days, fall_back=fall_back)
        _publishing.finish(repository, out, hold=hold)


@command.command("promote")
@_signing.directory
@click.argument("channel")
@click.argument("to")
@option(
    "--arch",
    "only",
    once=True,
    multiple=True,
    metavar="NAME",
    standard="all of CHANNEL",
    help="Architecture; repeat for more.",
)
@_signing.hold
@_signing.signer
@_options.as_json
def promote(
    directory: Path, channel: str, to: str, only: tuple[str, ...], hold: bool, signer: Signer, as_json: bool
) -> None:
    """Make the release of CHANNEL that of channel TO: the same bytes, nothing built again."""
    out, keys = Out(as_json), signer.load(ROLES[1:])
    with _publishing.opened(directory, signer, keys) as repository:
        there = [arch for name, arch in repository.releases() if name == channel]
        if not there:
            raise PhaseError(f"{directory} has no release of {channel}")
        for arch in [arches.canonical(each) for each in only] or there:
            repository.promote(channel, to, arch)
        _publishing.finish(repository, out, hold=hold)


@command.command("withdraw")
@_signing.directory
@click.argument("channel")
@click.argument("arch")
@_signing.hold
@_signing.signer
@_options.as_json
def withdraw(directory: Path, channel: str, arch: str, hold: bool, signer: Signer, as_json: bool) -> None:
    """Offer nothing for CHANNEL and ARCH any more: machines that ask for it are told so.

    To take back one release and offer another, `phase release add` the other: versions only ever rise.
    The files go with `phase release prune`.
    """
    out, keys = Out(as_json), signer.load(("targets", "snapshot", "timestamp"))
    with _publishing.opened(directory, signer, keys) as repository:
        repository.withdraw(channel, arch)
        _publishing.finish(repository, out, hold=hold)


@command.command("export")
@_signing.directory
@click.argument("target", required=False, type=click.Path(file_okay=False, path_type=Path))
@option(
    "--oci",
    once=True,
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIRECTORY",
    help="Write an OCI image layout here, for registries.",
)
@option(
    "--only",
    multiple=True,
    metavar="CHANNEL/ARCH",
    standard="all",
    help="What to export; repeat for more.",
)
@_options.as_json
def export(
    directory: Path, target: Path | None, oci: Path | None, only: tuple[str, ...], as_json: bool
) -> None:
    """Copy what clients need into TARGET, for a web server, CDN or object store.

    With --oci and without TARGET, for registries alone.
    """
    from phase.cli.facts import Exported
    from phase.release import export as exports
    from phase.release import oci as layouts
    from phase.release.repository import Repository

    places = [(target, exports.export), (oci, layouts.export)]
    if target is None and oci is None:
        raise click.UsageError("say where to: TARGET, or --oci DIRECTORY")
    out, wanted = Out(as_json), [_pair(each) for each in only] if only else None
    _publishing.identity(directory, None)
    total = 0
    with _signing.locked(directory):
        repository = Repository.open(directory, resume=False)
        for place, write in places:
            if place is not None:
                written = write(repository, place, wanted)
                out.line(f"{written} files written to {place}")
                total += written
    out.done = True
    out.facts(Exported(target=str(target or oci), files=total))
    if target is not None and not target.stat().st_mode & 0o011:
        note(f"only this account can enter {target}: let the account of the web server in")


@command.command("verify")
@_signing.directory
@_release.root_option(otherwise="the repository's own first root")
@_options.as_json
def verify(directory: Path, root_file: Path | None, as_json: bool) -> None:
    """Verify every release as a client would: signatures, expiry, versions, every byte.

    Of a part of a repository, what is there is verified, and the rest is named.
    """
    from phase.cli.facts import VerifiedRelease, VerifiedRepository
    from phase.release import check
    from phase.release.pinned import repository_id
    from phase.release.repository import begun

    if begun(directory) == "staged":
        raise PhaseError(
            f"{directory} is not published yet: it waits for its first signatures",
            hint="See `phase release sign`.",
        )
    get = check.reader(directory)
    trusted = _release.read_root(root_file) if root_file else get("1.root.json", _release.MAX_ROOT)
    judged = check.judge(get, trusted)
    _check_expiry(judged, _release.now())
    out, verified = Out(as_json), set[tuple[str, str]]()
    for found in judged.manifests():
        verified = check.verify_blobs(directory, found, verified)
    facts = [
        VerifiedRelease(channel=found.channel, arch=found.arch, version=found.version, release=found.release)
        for found in judged.manifests()
    ]
    out.facts(VerifiedRepository(verified=facts, absent=list(judged.absent)))
    for each in facts:
        out.line(f"{each.channel}/{each.arch} {each.release} (version {each.version}) verified")
    if not facts:
        out.line("root, timestamp, snapshot and targets verified; there is no release here")
    if judged.absent:
        out.line(f"not here: {', '.join(judged.absent)}")
    if root_file is None:
        out.line(f"the repository's id is {repository_id(trusted)}")
        out.line("judged by this repository's own first root; give --root for the one your images hold")


def _check_expiry(judged: "Judged", now: datetime) -> None:
    expired = sorted(judged.expired(now))
    if expired:
        ended = ", ".join(f"{role} at {judged.signed[role].expires:%Y-%m-%d %H:%M} UTC" for role in expired)
        raise PhaseError(
            f"no machine takes what is published: expired {ended}",
            hint="Sign it anew: `phase release refresh` the timestamp, `phase release renew` the others.",
        )


def _pair(text: str) -> tuple[str, str]:
    channel, slash, arch = text.partition("/")
    if not slash:
        raise click.UsageError(f"{text!r} is not CHANNEL/ARCH, as in stable/x86_64")
    return channel, arches.canonical(arch)
