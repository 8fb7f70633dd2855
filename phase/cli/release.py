"""`phase release`: publish what machines boot."""

import json
import math
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from phase import arch as arches
from phase.cli import _artifacts, _ceremony, _publishing, _release, _signing, _upkeep
from phase.errors import PhaseError
from phase.release import keys as release_keys
from phase.release.keys import COUNTS, LOCAL_COUNTS, ONLINE, ROLES, ReleaseKeys

if TYPE_CHECKING:
    from phase.release.check import Judged

_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group("release")
def command() -> None:
    """Sign releases and publish them, as a tree of files any web server can serve."""


for each in (*_ceremony.COMMANDS, *_upkeep.COMMANDS):
    command.add_command(each)


@command.command("key")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--role", type=click.Choice(ROLES), required=True, help="What the key will sign.")
@_signing.cost
@click.option("--plain", is_flag=True, help="No passphrase: for keys that sign unattended.")
@_signing.passphrase_file
@click.option("--module", help="PKCS#11 library of a token: the key is made there, and stays there.")
@click.option("--token", help="Label of the token.")
@click.option("--object", "label", help="Label of the key on the token; the file's name if not given.")
@click.option("--existing", is_flag=True, help="The key is there already: write its public half.")
def key(
    file: Path,
    role: str,
    cost: str,
    plain: bool,
    passphrase_file: Path | None,
    module: str | None,
    token: str | None,
    label: str | None,
    existing: bool,
) -> None:
    """Make one key: FILE, for example root-1.json, and beside it the public half, root-1.pub.

    With --module and --token the key is on a hardware token; FILE says where. Its passphrase is the PIN.
    """
    if not release_keys.is_key_name(file.name, role):
        raise click.UsageError(f"call it {role}.json or {role}-NAME.json: the name says what it signs")
    if bool(module) != bool(token):
        raise click.UsageError("a key on a token needs both --module and --token")
    if existing and not module:
        public = release_keys.read_public(file, role)
        _signing.write_public(file.with_suffix(".pub"), role, public)
        click.echo(f"{role} {public}")
        return
    if not existing and not file.exists() and file.with_suffix(".pub").exists():
        raise PhaseError(f"{file.with_suffix('.pub')} is there already", hint="Keys are never overwritten.")
    if module and token:
        signer = _signing.on_token(
            file, role, release_keys.Place(module, token, label or file.stem), passphrase_file, existing
        )
    else:
        if plain and passphrase_file:
            raise click.UsageError("--plain makes a key without a passphrase; leave --passphrase-file out")
        words = _signing.new_passphrase(file, passphrase_file, plain=plain)
        signer = ReleaseKeys.generate({role: 1})[role][0]
        release_keys.save_one(file, role, signer, passphrase=words, cost=cost)
    _signing.write_public(file.with_suffix(".pub"), role, signer.public_hex)
    click.echo(f"{role} {signer.public_hex}")


@command.command("init")
@_signing.directory
@click.option("--new-keys", type=click.Path(path_type=Path), help="Make a key for every role here.")
@click.option("--root-keys", type=click.IntRange(1, 16), default=COUNTS["root"], show_default=True)
@_signing.cost
@click.option("--plain", is_flag=True, help="No passphrase on any of the new keys.")
@_signing.keys
@_signing.publics
@_signing.thresholds
@_signing.passphrase_file
def init(
    directory: Path,
    new_keys: Path | None,
    root_keys: int,
    cost: str,
    plain: bool,
    key_directories: tuple[Path, ...],
    public_files: tuple[Path, ...],
    thresholds: tuple[str, ...],
    passphrase_file: Path | None,
) -> None:
    """Begin a repository in DIRECTORY.

    With --new-keys this makes the keys too. In a ceremony each holder has made one with
    `phase release key`: give the public halves with --public, and with --keys those that
    sign here; the others sign later, see `phase release sign`.
    """
    from phase.release import roles
    from phase.release.pinned import Pin, repository_id
    from phase.release.repository import Repository, begun

    if begun(directory):
        raise PhaseError(f"{directory} holds a repository already", hint="Choose another directory.")
    at_hand = _signing.load(key_directories, passphrase_file)
    if new_keys is not None:
        words = _signing.new_passphrase(new_keys, passphrase_file, plain=plain)
        made = ReleaseKeys.generate({**LOCAL_COUNTS, "root": root_keys})
        paths = made.save(new_keys, passphrase=words, plain=ONLINE, cost=cost)
        if not plain:
            click.echo(f"{', '.join(ONLINE)}: no passphrase, they sign unattended")
        named = [(role, signer.public_hex) for role in ROLES for signer in made[role]]
        for path, (role, public_hex) in zip(paths, named, strict=True):
            _signing.write_public(path.with_suffix(".pub"), role, public_hex)
        at_hand |= made
    public = _signing.read_publics(public_files)
    base = {role: rule for role, rule in roles.rules(at_hand).items() if rule.keys}
    rules = _signing.rules(base, public, thresholds)
    remembering = [*key_directories, *([new_keys] if new_keys is not None else [])]
    with _signing.locked(directory):
        repository = Repository.create(directory, keys=at_hand, rules=rules, now=_release.now())
        _publishing.finish(repository)
        pin = Pin(remembering, repository_id(repository.first_root()), told=True)
        _publishing.remember(pin, repository)


@command.command("add")
@_signing.directory
@click.argument("channel")
@click.argument("arch")
@click.option("--artifacts", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--kernel", type=_file)
@click.option("--initramfs", type=_file)
@click.option("--rootfs", type=_file)
@click.option("--dtb", "dtbs", multiple=True, type=_file, help="A device tree; repeat for more.")
@click.option("--cmdline", help="Kernel command line to sign; else the file `cmdline` of --artifacts.")
@click.option("--release", "version", required=True, help="The version people speak of.")
@click.option(
    "--days",
    type=click.FloatRange(0.01, 3650),
    help="How long the release holds, also when it is renewed; 180 if not given.",
)
@click.option("--force", is_flag=True, help="Sign files that do not look like what they are called.")
@_signing.hold
@_signing.root
@_signing.keys
@_signing.passphrase_file
def add(
    directory: Path,
    channel: str,
    arch: str,
    artifacts: Path | None,
    kernel: Path | None,
    initramfs: Path | None,
    rootfs: Path | None,
    dtbs: tuple[Path, ...],
    cmdline: str | None,
    version: str,
    days: float | None,
    force: bool,
    hold: bool,
    root_file: Path | None,
    key_directories: tuple[Path, ...],
    passphrase_file: Path | None,
) -> None:
    """Make files the release of CHANNEL for ARCH; they are copied."""
    from phase.release.artifacts import read_cmdline
    from phase.release.repository import Repository

    if days is not None and not math.isfinite(days):
        raise click.UsageError(f"--days {days} is not a number of days")
    given = {"kernel": kernel, "initramfs": initramfs, "rootfs": rootfs}
    found = _artifacts.gathered(artifacts, given, dtbs)
    _artifacts.check(found, arches.canonical(arch), force=force)
    if artifacts and cmdline is None:
        cmdline = read_cmdline(artifacts)
    known = (channel, arches.canonical(arch)) in Repository.open(directory).releases()
    only = ("release", "snapshot", "timestamp") if known else ROLES[1:]
    keys = _signing.load(key_directories, passphrase_file, only)
    with _publishing.opened(directory, key_directories, keys, root_file) as repository:
        repository.add(channel, arch, found, cmdline=cmdline or "", release=version, days=days)
        _publishing.finish(repository, hold=hold)


@command.command("promote")
@_signing.directory
@click.argument("channel")
@click.argument("to")
@click.option("--arch", "only", multiple=True, help="Architecture; all of CHANNEL when left out.")
@_signing.hold
@_signing.root
@_signing.keys
@_signing.passphrase_file
def promote(
    directory: Path,
    channel: str,
    to: str,
    only: tuple[str, ...],
    hold: bool,
    root_file: Path | None,
    key_directories: tuple[Path, ...],
    passphrase_file: Path | None,
) -> None:
    """Make the release of CHANNEL that of channel TO: the same bytes, nothing built again."""
    keys = _signing.load(key_directories, passphrase_file, ROLES[1:])
    with _publishing.opened(directory, key_directories, keys, root_file) as repository:
        there = [arch for name, arch in repository.releases() if name == channel]
        if not there:
            raise PhaseError(f"{directory} has no release of {channel}")
        for arch in [arches.canonical(each) for each in only] or there:
            repository.promote(channel, to, arch)
        _publishing.finish(repository, hold=hold)


@command.command("withdraw")
@_signing.directory
@click.argument("channel")
@click.argument("arch")
@_signing.hold
@_signing.root
@_signing.keys
@_signing.passphrase_file
def withdraw(
    directory: Path,
    channel: str,
    arch: str,
    hold: bool,
    root_file: Path | None,
    key_directories: tuple[Path, ...],
    passphrase_file: Path | None,
) -> None:
    """Offer nothing for CHANNEL and ARCH any more: machines that ask for it are told so.

    To take back one release and offer another, `phase release add` the other: versions only ever rise.
    The files go with `phase release prune`.
    """
    keys = _signing.load(key_directories, passphrase_file, ("targets", "snapshot", "timestamp"))
    with _publishing.opened(directory, key_directories, keys, root_file) as repository:
        repository.withdraw(channel, arch)
        _publishing.finish(repository, hold=hold)


@command.command("export")
@_signing.directory
@click.argument("target", type=click.Path(file_okay=False, path_type=Path))
@click.option("--only", multiple=True, metavar="CHANNEL/ARCH", help="Repeat for more; all when left out.")
def export(directory: Path, target: Path, only: tuple[str, ...]) -> None:
    """Copy what clients need into TARGET, for a web server, CDN or object store."""
    from phase.release import export as exports
    from phase.release.repository import Repository

    wanted = [_pair(each) for each in only] if only else None
    _publishing.identity(directory, None)
    with _signing.locked(directory):
        written = exports.export(Repository.open(directory, resume=False), target, wanted)
    click.echo(f"{written} files written to {target}")
    if not target.stat().st_mode & 0o011:
        _signing.tell(f"only this account can enter {target}: let the account of the web server in")


@command.command("verify")
@_signing.directory
@click.option("--root", type=_file, help="Trusted root; the repository's own first when left out.")
@_signing.as_json
def verify(directory: Path, root: Path | None, as_json: bool) -> None:
    """Verify every release as a client would: signatures, expiry, versions, every byte.

    Of a part of a repository, what is there is verified, and the rest is named.
    """
    from phase.release import check
    from phase.release.repository import begun

    if begun(directory) == "staged":
        raise PhaseError(
            f"{directory} is not published yet: it waits for its first signatures",
            hint="See `phase release sign`.",
        )
    get = check.reader(directory)
    trusted = _release.read_root(root) if root else get("1.root.json", _release.MAX_ROOT)
    judged = check.judge(check.reader(directory), trusted)
    _check_expiry(judged, _release.now())
    verified: set[tuple[str, int]] = set()
    for found in judged.manifests():
        verified = check.verify_blobs(directory, found, verified)
    facts = [
        {
            "channel": found.channel,
            "arch": found.arch,
            "version": found.version,
            "release": found.release,
        }
        for found in judged.manifests()
    ]
    if as_json:
        click.echo(json.dumps({"verified": facts, "absent": list(judged.absent)}))
        return
    for each in facts:
        click.echo(
            f"{each['channel']}/{each['arch']} {each['release']} (version {each['version']}) verified"
        )
    if not facts:
        click.echo("root, timestamp, snapshot and targets verified; there is no release here")
    if judged.absent:
        click.echo(f"not here: {', '.join(judged.absent)}")
    if root is None:
        click.echo("judged by this repository's own first root; give --root for the one your images hold")


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
