"""`phase release`: publish what machines boot."""

import json
from pathlib import Path
from typing import Any

import click

from phase import arch as arches
from phase.cli import _artifacts, _release, _signing
from phase.errors import PhaseError
from phase.release import keys as release_keys
from phase.release.keys import COUNTS, LOCAL_COUNTS, ROLES, ReleaseKeys

_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group("release")
def command() -> None:
    """Sign releases and publish them, as a tree of files any web server can serve."""


@command.command("key")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--role", type=click.Choice(ROLES), required=True, help="What the key will sign.")
@_signing.cost
@click.option("--plain", is_flag=True, help="No passphrase: for keys that sign unattended.")
@_signing.passphrase_file
@click.option("--module", help="PKCS#11 library of a token: the key is made there, and stays there.")
@click.option("--token", help="Label of the token.")
@click.option("--object", "label", help="Label of the key on the token; the file's name if not given.")
@click.option("--existing", is_flag=True, help="The token has the key already.")
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
        raise click.UsageError(f"call it {role}.json or {role}-1.json: the name says what it signs")
    if bool(module) != bool(token) or (existing and not module):
        raise click.UsageError("a key on a token needs both --module and --token")
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
@click.option("--plain", is_flag=True, help="No passphrase on the new keys.")
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
    from phase.release.repository import Repository

    at_hand = _signing.load(key_directories, passphrase_file)
    if new_keys is not None:
        words = _signing.new_passphrase(new_keys, passphrase_file, plain=plain)
        made = ReleaseKeys.generate({**LOCAL_COUNTS, "root": root_keys})
        paths = made.save(new_keys, passphrase=words, cost=cost)
        named = [(role, signer.public_hex) for role in ROLES for signer in made[role]]
        for path, (role, public_hex) in zip(paths, named, strict=True):
            _signing.write_public(path.with_suffix(".pub"), role, public_hex)
        at_hand |= made
    public = _signing.read_publics(public_files)
    base = {role: rule for role, rule in roles.rules(at_hand).items() if rule.keys}
    rules = _signing.rules(base, public, thresholds)
    with _signing.locked(directory):
        _signing.finish(Repository.create(directory, keys=at_hand, rules=rules))


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
    "--days", type=click.FloatRange(0.01, 3650), help="How long the release holds; 180 if not given."
)
@click.option("--force", is_flag=True, help="Sign files that do not look like what they are called.")
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
    key_directories: tuple[Path, ...],
    passphrase_file: Path | None,
) -> None:
    """Make files the release of CHANNEL for ARCH; they are copied."""
    from datetime import timedelta

    from phase.release.artifacts import read_cmdline
    from phase.release.repository import Repository

    given = {"kernel": kernel, "initramfs": initramfs, "rootfs": rootfs}
    found = _artifacts.gathered(artifacts, given, dtbs)
    _artifacts.check(found, arches.canonical(arch), force=force)
    if artifacts and cmdline is None:
        cmdline = read_cmdline(artifacts)
    expires = None if days is None else (_release.now() + timedelta(days=days)).replace(microsecond=0)
    known = (channel, arches.canonical(arch)) in Repository.open(directory).releases()
    only = ("release", "snapshot", "timestamp") if known else ROLES[1:]
    keys = _signing.load(key_directories, passphrase_file, only)
    with _signing.locked(directory):
        repository = Repository.open(directory, keys=keys)
        repository.add(channel, arch, found, cmdline=cmdline or "", release=version, expires=expires)
        _signing.finish(repository)


@command.command("sign")
@_signing.directory
@click.option("--export", "target", type=click.Path(path_type=Path), help="Write what is to be signed here.")
@click.option(
    "--import", "source", type=click.Path(exists=True, path_type=Path), help="Take signatures back."
)
@_signing.keys
@_signing.passphrase_file
@_signing.gap
def sign(
    directory: Path,
    target: Path | None,
    source: Path | None,
    key_directories: tuple[Path, ...],
    passphrase_file: Path | None,
    gap: bool,
) -> None:
    """Sign what waits for signatures, here or on a machine without a network.

    In a repository: --export DIR writes what is to be signed; --import DIR takes it back, and
    publishes once enough have signed. On a directory so written: shows what is in it, and signs it
    with --keys.
    """
    from phase.release import staging
    from phase.release.repository import Repository

    carried = not (directory / "metadata").exists() and not (directory / staging.PLACE).exists()
    if carried and (target or source):
        raise PhaseError(f"{directory} is not a repository", hint="--export and --import are for one.")
    staged = staging.load(directory if carried else directory / staging.PLACE)
    for role, metadata in sorted(staged.items()):
        click.echo("\n".join(staging.summary(role, metadata)))
    if carried:
        signed = staging.sign(directory, _signing.load(key_directories, passphrase_file))
        click.echo(f"signed {', '.join(signed) or 'nothing: --keys holds no key of these roles'}")
        return
    if target is not None:
        if not staged:
            raise PhaseError(f"nothing waits for signatures in {directory}")
        staging.save(target, staged)
        click.echo(f"{', '.join(sorted(staged))} to be signed are in {target}")
        return
    keys = _signing.load(key_directories, passphrase_file)
    with _signing.locked(directory):
        repository = Repository.open(directory, keys=keys)
        if not repository.staged:
            click.echo(f"nothing waits for signatures in {directory}")
            return
        if source is not None:
            repository.collect(source)
        _signing.finish(repository, gap=gap, all_waiting=True)


@command.command("refresh")
@_signing.directory
@_signing.keys
@_signing.passphrase_file
def refresh(directory: Path, key_directories: tuple[Path, ...], passphrase_file: Path | None) -> None:
    """Sign the timestamp anew, and what else expires soon and --keys can sign. For cron."""
    from phase.release.repository import Repository

    keys = _signing.load(key_directories, passphrase_file, ("snapshot", "timestamp", "release"))
    with _signing.locked(directory):
        # What waits for signatures goes on waiting.
        repository = Repository.open(directory, keys=keys, resume=False)
        renewed = [role for role in repository.renew() if role != "timestamp"]
        repository.publish()
    if renewed:
        click.echo(f"renewed {', '.join(renewed)}")
    click.echo(f"timestamp until {repository.timestamp_expires:%Y-%m-%d %H:%M} UTC")


@command.command("rotate")
@_signing.directory
@_signing.publics
@_signing.thresholds
@_signing.keys
@_signing.passphrase_file
@_signing.gap
def rotate(
    directory: Path,
    public_files: tuple[Path, ...],
    thresholds: tuple[str, ...],
    key_directories: tuple[Path, ...],
    passphrase_file: Path | None,
    gap: bool,
) -> None:
    """Give roles other keys.

    Each role that a --public names is signed by exactly those keys from then on; the others keep
    theirs. The old keys must sign too: give them all with --keys, or collect them with
    `phase release sign`.
    """
    from phase.release.repository import Repository

    keys = _signing.load(key_directories, passphrase_file)
    with _signing.locked(directory):
        repository = Repository.open(directory, keys=keys)
        rules = _signing.rules(repository.rules, _signing.read_publics(public_files), thresholds)
        repository.rotate(ReleaseKeys({}), rules=rules)
        _signing.finish(repository, gap=gap)


@command.command("revoke")
@_signing.directory
@click.argument("public")
@_signing.publics
@_signing.thresholds
@_signing.keys
@_signing.passphrase_file
@_signing.gap
def revoke(
    directory: Path,
    public: str,
    public_files: tuple[Path, ...],
    thresholds: tuple[str, ...],
    key_directories: tuple[Path, ...],
    passphrase_file: Path | None,
    gap: bool,
) -> None:
    """Trust the key PUBLIC (64 hex digits, or how they begin) no longer.

    A --public takes its place; without one the role keeps its threshold, and must still have
    enough keys.
    """
    from phase.release import roles
    from phase.release.repository import Repository

    keys = _signing.load(key_directories, passphrase_file)
    with _signing.locked(directory):
        repository = Repository.open(directory, keys=keys)
        before = repository.rules
        matching = {
            each.keyval["public"]
            for rule in before.values()
            for each in rule.keys
            if len(public) >= 8 and each.keyval["public"].startswith(public)
        }
        if len(matching) != 1:
            raise PhaseError(
                f"{len(matching)} keys here begin with {public[:64]}", hint="See `phase release show`."
            )
        new = _signing.read_publics(public_files)
        rules = {}
        for role, rule in before.items():
            left = [each for each in rule.keys if each.keyval["public"] not in matching]
            replaced = left if len(left) == len(rule.keys) else [*left, *new.get(role, ())]
            rules[role] = roles.Rule(tuple(replaced), rule.threshold)
        repository.rotate(ReleaseKeys({}), rules=_signing.rules(rules, {}, thresholds))
        _signing.finish(repository, gap=gap)


@command.command("promote")
@_signing.directory
@click.argument("channel")
@click.argument("to")
@click.option("--arch", "only", multiple=True, help="Architecture; all of CHANNEL when left out.")
@_signing.keys
@_signing.passphrase_file
def promote(
    directory: Path,
    channel: str,
    to: str,
    only: tuple[str, ...],
    key_directories: tuple[Path, ...],
    passphrase_file: Path | None,
) -> None:
    """Make the release of CHANNEL that of channel TO: the same bytes, nothing built again."""
    from phase.release.repository import Repository

    keys = _signing.load(key_directories, passphrase_file, ROLES[1:])
    with _signing.locked(directory):
        repository = Repository.open(directory, keys=keys)
        there = [arch for name, arch in repository.releases() if name == channel]
        for arch in [arches.canonical(each) for each in only] or there:
            repository.promote(channel, to, arch)
        if not there:
            raise PhaseError(f"{directory} has no release of {channel}")
        _signing.finish(repository)


@command.command("export")
@_signing.directory
@click.argument("target", type=click.Path(file_okay=False, path_type=Path))
@click.option("--only", multiple=True, metavar="CHANNEL/ARCH", help="Repeat for more; all when left out.")
def export(directory: Path, target: Path, only: tuple[str, ...]) -> None:
    """Copy what clients need into TARGET, for a web server, CDN or object store."""
    from phase.release import export as exports
    from phase.release.repository import Repository

    wanted = None
    if only:
        pairs = [each.partition("/") for each in only]
        wanted = [(channel, arches.canonical(arch)) for channel, _, arch in pairs]
    with _signing.locked(directory):
        written = exports.export(Repository.open(directory, resume=False), target, wanted)
    click.echo(f"{written} files written to {target}")


@command.command("verify")
@_signing.directory
@click.option("--root", type=_file, help="Trusted root; the repository's own first when left out.")
@_signing.as_json
def verify(directory: Path, root: Path | None, as_json: bool) -> None:
    """Verify every release as a client would: signatures, expiry, versions, every byte."""
    from phase.release import check
    from phase.release.repository import Repository

    trusted = _release.read_root(root or directory / "metadata/1.root.json")
    facts = []
    for channel, arch in Repository.open(directory, resume=False).releases():
        found = check.verify(directory, trusted, channel=channel, arch=arch, now=_release.now()).manifest
        facts.append({"channel": channel, "arch": arch, "version": found.version, "release": found.release})
    if as_json:
        click.echo(json.dumps({"verified": facts}))
        return
    for each in facts:
        click.echo(
            f"{each['channel']}/{each['arch']} {each['release']} (version {each['version']}) verified"
        )
    if root is None:
        click.echo("judged by this repository's own first root; give --root for the one your images hold")


@command.command("show")
@_signing.directory
@_signing.as_json
def show(directory: Path, as_json: bool) -> None:
    """Say what is published, who signs what, what waits for signatures."""
    from phase.release.repository import Repository

    repository = Repository.open(directory)
    published = (directory / "metadata/timestamp.json").exists()
    facts: dict[str, Any] = {
        "published": published,
        "roles": {
            role: {"threshold": rule.threshold, "keys": [each.keyval["public"] for each in rule.keys]}
            for role, rule in repository.rules.items()
        },
        "expires": {role: f"{when:%Y-%m-%dT%H:%M:%SZ}" for role, when in repository.expiries().items()},
        "waiting": {each.role: f"{len(each.signed)}/{each.threshold}" for each in repository.lacks()},
        "releases": [],
    }
    for channel, arch in repository.releases():
        found = repository.manifest(channel, arch)
        facts["releases"].append(
            {
                "channel": channel,
                "arch": arch,
                "release": found.release,
                "version": found.version,
                "cmdline": found.cmdline,
                "artifacts": {name: each.length for name, each in sorted(found.artifacts.items())},
            }
        )
    if as_json:
        click.echo(json.dumps(facts))
        return
    if not published:
        click.echo("not published yet")
    for role, rule in facts["roles"].items():
        click.echo(f"{role}: {rule['threshold']} of {len(rule['keys'])} sign")
        for public in rule["keys"]:
            click.echo(f"  {public}")
    for each in facts["releases"]:
        names = ", ".join(f"{name} {length}" for name, length in each["artifacts"].items())
        click.echo(
            f"{each['channel']}/{each['arch']} {each['release']} (version {each['version']}): {names}"
        )
    for role, when in facts["expires"].items():
        click.echo(f"{role} holds until {when}")
    for role, count in facts["waiting"].items():
        click.echo(f"{role} waits for signatures: {count}")


def _name(facts: dict[str, Any]) -> str:
    return "{channel}/{arch} {release} (version {version})".format(**facts)
