"""A mirror: one round after the other, each of which leaves a directory whole.

What is served meanwhile is the old state or the new one. The timestamp is written last, and only when every
artifact of each release that it leads to is there.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from tuf.api.metadata import Targets

from phase import files, trust
from phase.discovery import DiscoveryError, discover
from phase.errors import PhaseError
from phase.fetch.here import Here, blobs_in
from phase.fetch.release import Proven
from phase.fetch.way import DIRECT, Way
from phase.mirror.filling import Filling, Name
from phase.mirror.output import Output
from phase.release import prune, staging
from phase.release.errors import ManifestError, RepositoryError
from phase.release.manifest import Manifest, split_role
from phase.release.tree import Tree
from phase.trust import Floor, Refreshed, clock, wire

#: Seconds that one round may take.
ROUND_SECONDS = 3600.0
#: Seconds to look for providers of one release, and to go on once one is known.
_SEARCH, _GATHER = 5.0, 1.0
#: Releases that a mirror of everything keeps at most.
MAX_RELEASES = 256
#: Says that a directory is a mirror's.
MARK = ".mirror"

#: Gives the addresses of providers of these releases.
Providers = Callable[[Sequence[Name]], Sequence[str]]


class MirrorError(PhaseError):
    """A mirror does not have all that it should have."""


class Mirror:
    """A directory that follows what a publisher publishes.

    Args:
        directory: made where there is none.
        root: bytes of the trusted root.
        names: channels and architectures that it keeps; one at least.
        everything: whether to keep all other releases of the repository, too.
        providers: whom to fetch from; asked anew in each round.
        way: how to get to them.
        tell: gets lines for people.
    """

    def __init__(
        self,
        directory: Path,
        root: bytes,
        names: Sequence[Name],
        *,
        everything: bool,
        providers: Providers,
        way: Way = DIRECT,
        tell: Callable[[str], None],
    ) -> None:
        self.directory = directory
        self._root = root
        self._names = tuple(dict.fromkeys(names))
        self._everything = everything
        self._providers = providers
        self._way = way
        self._tell = tell
        #: Contents that this process has seen whole, and the file: gigabytes are not hashed in every round.
        self._seen: dict[str, tuple[int, ...]] = {}

    def check(self) -> None:
        """Refuse a directory that is another's: a mirror removes there what its publisher has no more.

        Raises:
            MirrorError: it has releases, and no mirror has put them there: a publisher may sign them.
        """
        if (self.directory / staging.PLACE).exists():
            raise MirrorError(
                f"{self.directory} is where a publisher signs: nothing is mirrored into it",
                hint="Give another directory.",
            )
        if (self.directory / "metadata").exists() and not (self.directory / MARK).exists():
            raise MirrorError(
                f"{self.directory} has releases that no mirror has put there: a publisher may sign them",
                hint="Give an empty directory; or, where a mirror may keep what is there, make an empty "
                f"file {self.directory / MARK}.",
            )

    def round(self) -> None:
        """Bring the directory to what is published now.

        Raises:
            PhaseError: something that it should have is not there; what it had is whole all the same.
        """
        self.check()
        with Output(self.directory) as place:
            deadline = time.monotonic() + ROUND_SECONDS
            filling = Filling(place, self._root, deadline=deadline, way=self._way, tell=self._tell)
            held, here = self._held()
            urls = self._providers(self._names)
            failed: dict[Name, PhaseError] = {}
            first, proven = self._prove(filling, urls, held, here)
            with place.writing():
                os.close(files.open_plain(MARK, os.O_RDWR | os.O_CREAT, directory=place.descriptor))
            offered = _offered(proven.release)
            names = {*self._names, *(offered[:MAX_RELEASES] if self._everything else ())}
            # Of those that were withdrawn, it is said here, without asking anyone.
            found = self._beside(filling, names - {first}, proven, urls, here, failed)
            found = {first: proven.release} | found
            # The provider that has proven it has it whole, by its own word.
            urls = [proven.url, *(url for url in urls if url != proven.url)]
            for name, release in found.items():
                with _noted(failed, name):
                    self._fetch(place, release.manifest, urls, deadline)
            whole = {name: release for name, release in found.items() if name not in failed}
            # What the publisher has withdrawn must not keep the others as they are until they expire.
            lost = held.intersection(names, offered) - whole.keys()
            if not lost and whole:
                self._keep(filling, whole, here)
        if failed:
            raise MirrorError("; ".join(f"{'/'.join(name)}: {error}" for name, error in failed.items()))

    def _held(self) -> tuple[set[Name], dict[str, bytes]]:
        """The releases that are served from here now, and their metadata; nothing where it is damaged."""
        try:
            tree = Tree.published_in(self.directory)
            return {*tree.present()}, tree.metadata(tree.present())
        except RepositoryError:
            return set(), {}

    def _floors(self, held: Iterable[Name], here: dict[str, bytes]) -> list[Floor]:
        """What the metadata that is here proves: a booted system remembers nothing else."""
        for channel, arch in held:
            with contextlib.suppress(trust.TrustError):
                found = trust.refresh(
                    self._root,
                    trust.held(here),
                    channel=channel,
                    arch=arch,
                    now=clock.trusted_now(),
                    policy=trust.Policy(grace=trust.ANY_AGE),
                )
                return [found.floor]
        return []

    def _prove(
        self,
        filling: Filling,
        urls: Sequence[str],
        held: Iterable[Name],
        here: dict[str, bytes],
    ) -> tuple[Name, Proven]:
        """The newest state, and a release that proves it: the first one that has not been withdrawn."""
        floors = self._floors(held, here)
        withdrawn: list[PhaseError] = []
        for name in dict.fromkeys((*self._names, *(sorted(held) if self._everything else ()))):
            try:
                return name, filling.prove(name, urls, here=floors, cached=here)
            except trust.WrongTargetError as error:
                withdrawn.append(error)
        raise withdrawn[0]

    def _beside(
        self,
        filling: Filling,
        names: Iterable[Name],
        proven: Proven,
        urls: Sequence[str],
        here: dict[str, bytes],
        failed: dict[Name, PhaseError],
    ) -> dict[Name, Refreshed]:
        found = {}
        for name in sorted(names):
            with _noted(failed, name):
                found[name] = filling.beside(name, proven, urls, cached=here)
        return found

    def _fetch(self, place: Output, manifest: Manifest, urls: Sequence[str], deadline: float) -> None:
        liars: set[str] = set()
        # What is served now is the release before, or nearly the same release of another channel.
        here = Here()
        here.add_directory(self.directory)
        here.add_release(manifest, blobs_in(self.directory))
        for artifact in manifest.artifacts.values():
            blob = self.directory / "blobs" / "sha256" / artifact.sha256
            if (stamp := _stamp(blob)) and stamp == self._seen.get(artifact.content):
                continue
            place.fetch(
                artifact,
                urls,
                deadline=deadline,
                progress=lambda *_: None,
                liars=liars,
                way=self._way,
                here=here,
            )
            self._seen[artifact.content] = _stamp(blob)

    def _keep(self, filling: Filling, whole: dict[Name, Refreshed], here: dict[str, bytes]) -> None:
        """Publish what is whole, if that is another state than before; then remove what is out of use."""
        metadata = {file: data for each in whole.values() for file, data in each.metadata.items()}
        if metadata.items() <= here.items():
            return
        name, release = next(iter(whole.items()))
        filling.keep(name, release, metadata)
        for (channel, arch), each in sorted(whole.items()):
            kept = each.manifest
            self._tell(f"{channel}/{arch} {kept.release} (version {kept.version}) is mirrored whole")
        prune.prune(Tree.published_in(self.directory))


def named(urls: Sequence[str]) -> Providers:
    """Providers that a person has named."""
    return lambda _: urls


def found(urls: Sequence[str], *, mdns: bool, dht: Sequence[tuple[str, int]]) -> Providers:
    """Providers that discovery finds, of any of the releases, behind those that a person has named.

    Args:
        urls: of the latter.
        mdns: ask the local network.
        dht: nodes to ask the DHT through: hosts and ports.
    """

    def find(names: Sequence[Name]) -> list[str]:
        known = dict.fromkeys(urls)
        for channel, arch in names:
            told = discover(channel, arch, urls=urls, mdns=mdns, dht=dht, timeout=_SEARCH, gather=_GATHER)
            known |= dict.fromkeys(provider.url for provider in told)
        if not known:
            wanted = ", ".join("/".join(name) for name in names)
            raise DiscoveryError(
                f"no provider of {wanted} was found", hint="Name one, or start one on this network."
            )
        return list(known)

    return find


def _stamp(path: Path) -> tuple[int, ...]:
    """What tells a file from another one, and from itself before it was written to; empty for no file."""
    try:
        found = path.lstat()
    except OSError:
        return ()
    return found.st_mode, found.st_ino, found.st_size, found.st_mtime_ns


@contextlib.contextmanager
def _noted(failed: dict[Name, PhaseError], name: Name) -> Iterator[None]:
    """Note why a release is not whole, and go on with the others."""
    try:
        yield
    except PhaseError as error:
        failed[name] = error


def _offered(release: Refreshed) -> list[Name]:
    """Every release of the repository that its verified metadata delegates to."""
    file = next(file for file in release.metadata if file.endswith(".targets.json"))
    data = release.metadata[file]
    targets, _ = wire.read(data, Targets, name=file, max_bytes=len(data))
    roles = targets.delegations.roles if targets.delegations else None
    names = []
    for role in sorted(roles or ()):
        with contextlib.suppress(ManifestError):
            names.append(split_role(role))
    return names
