"""What commands print with --json: one object each. Fields may be added; none changes its meaning.

Times are UTC, as `2027-01-01T00:00:00Z`.
"""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

Architecture = Annotated[str, Meta(description="`x86_64` or `arm64`")]
Time = Annotated[str, Meta(description="UTC, as `2027-01-01T00:00:00Z`")]


class Facts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of all."""


class Version(Facts, frozen=True, kw_only=True):
    """`phase version --json`."""

    version: Annotated[str, Meta(description="of Phase")]
    commit: Annotated[str | None, Meta(description="that it was made from, if that is known")]
    engine: Annotated[
        str, Meta(description="of the WebAssembly engine, wasmtime; empty where there is none")
    ]
    python: Annotated[str, Meta(description="of the interpreter")]


class Node(Facts, frozen=True, kw_only=True):
    """`phase init --json`."""

    node: Annotated[str, Meta(description="public key of this machine, 64 hex digits")]
    identity: Annotated[str, Meta(description="file that holds the key")]


class Netbooting(Facts, frozen=True, kw_only=True):
    """`phase netboot --json`, once, when it answers."""

    provider: Annotated[str, Meta(description="URL of the provider")]
    channel: Annotated[str, Meta(description="of the seeds")]
    arches: Annotated[list[Architecture], Meta(description="that it has seeds for")]
    interfaces: Annotated[list[str], Meta(description="on which machines are answered")]
    addresses: Annotated[list[str], Meta(description="from which, for each interface")]


class NodeReady(Facts, frozen=True, kw_only=True):
    """`phase node --json`, once, when it takes jobs."""

    node: Annotated[str, Meta(description="public key of the node, 64 hex digits")]
    address: Annotated[str, Meta(description="for `--node`: key, and where it listens")]
    hosts: Annotated[list[str], Meta(description="`HOST:PORT` of UDP")]


class Peer(Facts, frozen=True, kw_only=True):
    """One line of `phase peers --json`: what a node says of itself; in the DHT, signed by its key."""

    node: Annotated[str, Meta(description="public key of the node, 64 hex digits")]
    address: Annotated[str, Meta(description="for `--node`")]
    arch: Architecture
    runtimes: list[str]
    processors: int
    memory: Annotated[int, Meta(description="that it has for jobs, MiB")]
    slots: Annotated[int, Meta(description="jobs that it would take at once")]
    expires: Annotated[int, Meta(description="seconds since the epoch; 0 of what was heard nearby")]


class JobTaken(Facts, frozen=True, kw_only=True):
    """`phase job submit --detach --json`."""

    job: Annotated[str, Meta(description="its id")]
    node: Annotated[str, Meta(description="public key of the node that has it, 64 hex digits")]


class JobEnded(Facts, frozen=True, kw_only=True):
    """`phase job submit --json` and `phase job result --json`: a job with a verified receipt."""

    job: Annotated[str, Meta(description="its id")]
    node: Annotated[str, Meta(description="public key of the node that ran it, 64 hex digits")]
    nonce: Annotated[str, Meta(description="in its receipt")]
    status: Annotated[object, Meta(description="as in the receipt")]
    exit_code: Annotated[int, Meta(description="that the command ends with")]
    stdout: Annotated[str, Meta(description="base64")]
    stderr: Annotated[str, Meta(description="base64")]
    receipt: Annotated[str, Meta(description="the envelope, base64")]


class Setting(Facts, frozen=True, kw_only=True):
    """One option, as `phase config show --json` has it."""

    command: Annotated[str, Meta(description="as in `release add`")]
    option: Annotated[str, Meta(description="as in `--days`")]
    value: Annotated[object, Meta(description="what holds; null where nothing is set")]
    source: Annotated[
        str, Meta(description="`default`, the name of a variable, or the path and table of a file")
    ]
    problem: Annotated[str | None, Meta(description="why the value cannot be used")] = None


class Settings(Facts, frozen=True, kw_only=True):
    """`phase config show --json`."""

    files: Annotated[list[str], Meta(description="that were read, the nearest first")]
    settings: list[Setting]


class Serving(Facts, frozen=True, kw_only=True):
    """`phase serve --json`, once, when it is ready."""

    directory: Annotated[str, Meta(description="the repository that is served")]
    urls: Annotated[list[str], Meta(description="where")]


class FoundProvider(Facts, frozen=True, kw_only=True):
    """`phase discover --json`, for each provider. Nothing of it is verified."""

    url: str
    source: Annotated[str, Meta(description="how it was found: `mdns`, `dht` or `cmdline`")]
    channel: str | None
    arch: str | None
    version: int | None
    id: Annotated[str | None, Meta(description="what the provider calls itself")]


class ListedProvider(FoundProvider, frozen=True, kw_only=True):
    """`phase provider list --json`, for each provider."""

    answers: bool
    detail: Annotated[str, Meta(description="how it is, or why it does not answer")]


class FetchedArtifact(Facts, frozen=True, kw_only=True):
    """One file that `phase fetch` has."""

    name: str
    length: Annotated[int, Meta(description="bytes")]
    kept: Annotated[int, Meta(description="bytes of it that were there already")]
    reused: Annotated[int, Meta(description="bytes of it that were copied from other files of this machine")]
    sources: Annotated[dict[str, int], Meta(description="verified bytes by provider")]
    dropped: Annotated[dict[str, str], Meta(description="why a provider was given up, by its URL")]
    seconds: float


class Fetched(Facts, frozen=True, kw_only=True):
    """`phase fetch --json`."""

    channel: str
    arch: Architecture
    version: int
    release: str
    length: Annotated[int, Meta(description="bytes of the release")]
    fetched: Annotated[int, Meta(description="bytes of it that came from providers")]
    artifacts: list[FetchedArtifact]


class Updated(Facts, frozen=True, kw_only=True):
    """`phase update --json`."""

    newer: Annotated[bool, Meta(description="whether there is a newer release than the one that runs")]
    version: Annotated[int, Meta(description="of the newer one")] = 0
    release: Annotated[str, Meta(description="of the newer one")] = ""


class Verified(Facts, frozen=True, kw_only=True):
    """`phase verify --json`."""

    channel: str
    arch: Architecture
    version: int
    release: str
    artifacts: list[str]


class VerifiedRelease(Facts, frozen=True, kw_only=True):
    """One release of a repository."""

    channel: str
    arch: Architecture
    version: int
    release: str


class VerifiedRepository(Facts, frozen=True, kw_only=True):
    """`phase release verify --json`."""

    verified: list[VerifiedRelease]
    absent: Annotated[list[str], Meta(description="roles that are not in this part of a repository")]


class Missing(Facts, frozen=True, kw_only=True):
    """Signatures that are missing."""

    by: Annotated[str, Meta(description="role whose keys must sign")]
    signed: Annotated[int, Meta(description="how many have")]
    threshold: Annotated[int, Meta(description="how many must")]


class Waiting(Facts, frozen=True, kw_only=True):
    """A change that waits for signatures."""

    role: str
    version: int
    missing: Annotated[list[Missing], Meta(description="empty: it waits to be published")]


class Change(Facts, frozen=True, kw_only=True):
    """What a command of `phase release` that changes a repository prints.

    It is `add`, `discard`, `init`, `promote`, `refresh`, `renew`, `restore`, `revoke`, `rotate`, `sign` and
    `withdraw`.
    """

    published: Annotated[
        list[str], Meta(description="roles published now, other than snapshot and timestamp")
    ]
    waiting: Annotated[list[Waiting], Meta(description="all that waits for signatures")]
    timestamp_expires: Time | None
    renewed: Annotated[list[str], Meta(description="roles signed anew as they were")] = []
    discarded: Annotated[list[str], Meta(description="roles whose change was given up")] = []
    urgent: Annotated[list[str], Meta(description="roles that others must renew soon (exit code 3)")] = []


class Carried(Facts, frozen=True, kw_only=True):
    """`phase release sign --json` on a directory that `--export` has written."""

    repository: Annotated[str, Meta(description="its id: SHA-256 of the signed part of its first root")]
    signed: Annotated[list[str], Meta(description="roles signed now")]


class Key(Facts, frozen=True, kw_only=True):
    """`phase release key --json`."""

    role: str
    public: Annotated[str, Meta(description="64 hex digits")]
    file: Annotated[str, Meta(description="the private key, or where it is")]


class Pruned(Facts, frozen=True, kw_only=True):
    """`phase release prune --json`."""

    metadata: Annotated[int, Meta(description="files removed")]
    artifacts: Annotated[int, Meta(description="files removed")]


class Exported(Facts, frozen=True, kw_only=True):
    """`phase release export --json`."""

    target: str
    files: Annotated[int, Meta(description="files written")]


class Signers(Facts, frozen=True, kw_only=True):
    """Who signs a role."""

    threshold: Annotated[int, Meta(description="how many must sign")]
    keys: Annotated[list[str], Meta(description="public keys")]


class Release(Facts, frozen=True, kw_only=True):
    """A release in a repository."""

    channel: str
    arch: Architecture
    release: str
    version: int
    cmdline: str
    artifacts: Annotated[dict[str, int], Meta(description="bytes by name")]


class Shown(Facts, frozen=True, kw_only=True):
    """`phase release show --json`."""

    published: bool
    roles: dict[str, Signers]
    expires: Annotated[dict[str, str], Meta(description="time by role")]
    releases: list[Release]
    waiting: list[Waiting]


class Predicted(Facts, frozen=True, kw_only=True):
    """`phase release predict --json`."""

    release: str
    version: int
    cmdline: Annotated[str, Meta(description="that the seed hands over")]
    events: Annotated[list[str], Meta(description="that the TPM is given, in order")]
    pcr: Annotated[int, Meta(description="number of the register")]
    value: Annotated[str, Meta(description="of the register in the bank of SHA-256, 64 hex digits")]


class Role(Facts, frozen=True, kw_only=True):
    """How long a role holds."""

    role: str
    version: int
    release: Annotated[str, Meta(description="empty where the role is not a release's")]
    state: Annotated[
        str,
        Meta(description="`holds`; `due`, when half is over; `ends`, when a person must act; or `expired`"),
    ]
    expires: Time
    renew_by: Time
    threshold: int
    keys: list[str]


class Status(Facts, frozen=True, kw_only=True):
    """`phase release status --json`."""

    roles: list[Role]
    waiting: list[Waiting]


def utc(when: datetime) -> str:
    """A time, as these objects have it."""
    return f"{when:%Y-%m-%dT%H:%M:%SZ}"
