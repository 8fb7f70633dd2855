"""A running system becomes the next release: the seed's stages once more, from what runs.

It trusts the root that its seed had, takes no release but one newer than its own, and copies from its own
what the newer one shares with it. What a seed keeps, it keeps, too: the versions below which nothing is
trusted any more, the release, and the count of its starts.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from phase import cmdline, trust
from phase.boot.errors import BootError
from phase.boot.linux import Linux
from phase.boot.machine import Machine
from phase.boot.policy import GATHER
from phase.boot.seed import Seed
from phase.errors import PhaseError
from phase.fetch.here import Here
from phase.release.manifest import Manifest, role_name
from phase.trust import clock

#: What a seed has handed over to the system, and what the system serves.
RELEASE = Path("/phase/release")
#: Limit for a metadata file, bytes; each was within its own limit when the seed took it.
_MAX_FILE = 5_000_000


class _Proven(NamedTuple):
    """A newer release, what proves it, and who has it."""

    manifest: Manifest
    metadata: dict[str, bytes]
    urls: list[str]


class Running(Linux):
    """The machine that a system runs on: instead of an image of a seed it has what the seed has handed over.

    Args:
        release: directory of the release that runs.
    """

    def __init__(self, release: Path = RELEASE) -> None:
        super().__init__()
        self._metadata = metadata(release)

    def config(self, name: str) -> bytes | None:
        """See `Machine`. The root is the one that was built into the seed; no other facts are known."""
        return first_root(self._metadata) if name == "root.json" else None


class Update(Seed):
    """One update of a running system.

    Args:
        machine: the system's.
        release: directory of the release that runs.
        timeout: seconds for all of it.

    Raises:
        PhaseError: this system cannot be updated, whatever a provider has.
    """

    def __init__(self, machine: Machine, release: Path, *, timeout: float) -> None:
        super().__init__(machine)
        self.end = machine.monotonic() + timeout
        # An update is not in a hurry, and this system serves its own release.
        self.searches = len(GATHER) - 1
        self.besides = machine.own_hosts()
        self.release = release
        found = self._proof(metadata(release))
        #: The versions of what runs.
        self._runs = self.remembered.seen = found.floor
        # What this release signed is not for the next one to carry on.
        started = self._started(found.manifest)
        self.running = cmdline.chosen(self.running, started.cmdline)
        #: What this system is where nothing is newer, for people.
        self.standing = "this system is the newest release"
        if started is not found.manifest:
            self.standing = f"{started.release} runs, because {found.manifest.release} did not come up"

    def newer(self) -> Manifest | None:
        """The newer release, if there is one; nothing is fetched of it.

        Raises:
            PhaseError: nobody could be asked, or nobody has proven anything.
        """
        found = self._proven()
        return found and found.manifest

    def start_newer(self) -> None:
        """Fetch the newer release and start it. Returns only where there is none.

        Raises:
            PhaseError: it cannot be fetched or started; this system runs on.
        """
        # Before anything is changed: no other update is at work.
        initrd = self.machine.open_initrd()
        try:
            self.open_cache()
            if (found := self._proven()) is not None:
                self.hand_over(self.load(found.urls, found.manifest, found.metadata))
        finally:
            self.assembly.stop_sharing()
            # Its memory is given back.
            os.truncate(initrd, 0)
            if self.cache is not None:
                self.machine.close_cache()

    def here(self, manifest: Manifest) -> Here:
        """The chunks of the release that runs."""
        here = Here()
        here.add_directory(self.release)
        return here

    def give_way(self, seconds: int) -> None:
        """Nothing follows an update that fails: this system runs on."""
        self.rescue = ("", seconds)

    def _proven(self) -> _Proven | None:
        if self.way.refusal:
            raise BootError(self.way.refusal, hint=self.way.hint)
        try:
            return self._asked()
        except PhaseError:
            # Nobody who was named helps; in the seed, others are looked for then, too.
            if self.others_too or not self.searchable():
                raise
            self.others_too = True
            return self._asked()

    def _asked(self) -> _Proven | None:
        urls = self.discover()
        manifest, proof = self.refresh(urls)
        file = f"{role_name(manifest.channel, manifest.arch)}.json"
        return _Proven(manifest, proof, urls) if manifest.version > self._runs.meta.get(file, 0) else None

    def _started(self, manifest: Manifest) -> Manifest:
        """The release that runs: of a manifest, or the one before it, if the seed went back to that."""
        for each in (manifest, manifest.before):
            if each and each.rootfs and each.rootfs.sha256 == self.parameters.rootfs:
                return each
        return manifest

    def _proof(self, here: Mapping[str, bytes]) -> trust.Refreshed:
        """What proves the release that runs."""
        return trust.refresh(
            self.root,
            trust.held(here),
            channel=self.parameters.channel,
            arch=self.arch,
            now=clock.trusted_now(system=self.machine.clock()),
            # It has been verified in this boot, and may have expired since.
            policy=trust.Policy(grace=trust.ANY_AGE),
        )


def metadata(release: Path) -> dict[str, bytes]:
    """The metadata of the release that runs.

    Raises:
        BootError: there is none: this is not a system that a seed has started.
    """
    try:
        names = [name for name in os.listdir(release / "metadata") if name.endswith(".json")]
        return {name: _read(release / "metadata" / name) for name in names}
    except OSError as error:
        raise BootError(
            f"{release} cannot be read: {error.strerror}",
            hint="Only a system that a seed has started can be updated.",
        ) from error


def first_root(files: Mapping[str, bytes]) -> bytes:
    """The oldest root among metadata: the one that the seed trusted, with which its chain begins.

    Raises:
        BootError: there is none.
    """
    roots = [name for name in files if name.endswith(".root.json") and name.partition(".")[0].isdecimal()]
    if not roots:
        raise BootError("the release that runs came without its metadata", hint="Boot it from a provider.")
    return files[min(roots, key=lambda name: int(name.partition(".")[0]))]


def _read(path: Path) -> bytes:
    with open(path, "rb") as handle:
        return handle.read(_MAX_FILE)
