"""What a directory is filled with: one or several releases that the same metadata proves."""

import time
from collections.abc import Callable, Mapping, Sequence

from phase import files, trust
from phase.errors import PhaseError
from phase.fetch import Client
from phase.fetch.release import Proven, refresh_from
from phase.fetch.way import DIRECT, Way
from phase.mirror.output import Output
from phase.trust import Floor, Refreshed, clock, floor

#: Seconds that the last step may take when the time is up: everything has arrived by then.
_LAST_SECONDS = 5.0
#: The channel and the architecture of a release.
Name = tuple[str, str]


class Filling:
    """A directory, the root by which it is filled, and how people hear of it.

    Args:
        place: the directory.
        root: bytes of the trusted root.
        deadline: `time.monotonic()` when to give up.
        way: how to get to providers.
        tell: gets lines for people.
    """

    def __init__(
        self,
        place: Output,
        root: bytes,
        *,
        deadline: float,
        way: Way = DIRECT,
        tell: Callable[[str], None],
    ) -> None:
        self._place = place
        self._way = way
        self._root = root
        self._publisher = floor.publisher(root)
        self._deadline = deadline
        self._tell = tell

    def prove(
        self,
        name: Name,
        urls: Sequence[str],
        *,
        here: Sequence[Floor] = (),
        cached: Mapping[str, bytes] | None = None,
        refused: Callable[[str, PhaseError], None] | None = None,
    ) -> Proven:
        """The newest release that a provider proves; from now on, none before it is taken.

        Args:
            name: channel and architecture.
            urls: the providers.
            here: floors that are known of beside those that the directory remembers.
            cached: metadata that is here already.
            refused: called with each provider that is given up, and why.

        Raises:
            TrustError: no provider could prove a release.
            FetchError: no provider could be asked.
        """
        place = self._place
        known = floor.load_all(place.path, self._publisher, directory=place.descriptor)
        for why in known.unreadable:
            self._tell(f"not of this publisher, and passed over: {why}")
        channel, arch = name
        proven = refresh_from(
            urls,
            self._root,
            channel=channel,
            arch=arch,
            now=clock.trusted_now(last_seen=known.own.time),
            deadline=self._deadline,
            floor=known.own,
            others=(*known.others, *here),
            cached=cached,
            refused=refused,
            way=self._way,
        )
        found = proven.release
        # Before anything else: a release once seen is the least there may ever be again.
        with place.locked(self._deadline, self._tell), place.writing():
            self.newest(name, found, known.own)
            names = floor.keep(place.path, self._publisher, found.floor, known, directory=place.descriptor)
            for each in names:
                self._tell(f"{place.path / each} is removed; the limit is {floor.MAX_PUBLISHERS} publishers")
        return proven

    def beside(
        self, name: Name, proven: Proven, urls: Sequence[str], *, cached: Mapping[str, bytes]
    ) -> Refreshed:
        """Another release of the same repository, as the same timestamp has it.

        Args:
            name: channel and architecture.
            proven: a release of the repository.
            urls: the providers.
            cached: metadata that is here already.

        Raises:
            TrustError: it is not proven.
            FetchError: no provider could be asked.
        """
        had = proven.release.metadata
        left = max(self._deadline - time.monotonic(), 0.0)
        with Client([proven.url, *urls], timeout=left, way=self._way) as client:

            def get(file: str, limit: int) -> bytes:
                # A newer root or timestamp is for the next round: all releases of one belong together.
                if file in had:
                    return had[file]
                if file.endswith(".root.json"):
                    raise trust.NotFoundError(f"there is no {file} yet")
                return client.get_metadata(file, limit)

            channel, arch = name
            return trust.refresh(
                self._root,
                get,
                channel=channel,
                arch=arch,
                now=clock.trusted_now(last_seen=proven.release.floor.time),
                floor=proven.release.floor,
                cached={**cached, **had},
            )

    def keep(self, name: Name, found: Refreshed, metadata: Mapping[str, bytes]) -> None:
        """Write the metadata that vouches for what is there now.

        Args:
            name: channel and architecture of a release.
            found: the release.
            metadata: file name to bytes: of all releases that are there.
        """
        place = self._place
        with place.locked(max(self._deadline, time.monotonic() + _LAST_SECONDS), self._tell):
            self.newest(name, found, found.floor)
            # The timestamp last: who serves this directory meanwhile sees the old release or the new one.
            with place.below("metadata") as directory, place.writing("metadata"):
                for file in sorted(metadata, key=lambda file: file == "timestamp.json"):
                    files.write_at(directory, file, metadata[file])
            place.sweep()
            files.sync(place.descriptor)

    def newest(self, name: Name, found: Refreshed, known: Floor) -> None:
        """Look at the floor of now; it may be another than `known`, since others may have saved one.

        Raises:
            TrustError: another process has seen a newer release, which must not be replaced.
        """
        file = self._place.path / floor.name_of(self._publisher)
        held = floor.load(file, directory=self._place.descriptor)
        if held in (known, found.floor):
            return
        channel, arch = name
        trust.refresh(
            self._root,
            trust.held(found.metadata),
            channel=channel,
            arch=arch,
            now=clock.trusted_now(last_seen=held.time),
            floor=held,
        )
