"""What the places of a machine remember: versions below which nothing is trusted, and the time.

Firmware, disk and image each keep their own. A release is held to all of them, so none lowers another; and
none is told what another only claims, so none grows another: what is kept was signed for in this boot.
"""

from collections.abc import Callable
from datetime import datetime

from phase import marks, trust
from phase.boot.cache import Cache
from phase.boot.errors import CacheError
from phase.boot.machine import Machine
from phase.errors import PhaseError
from phase.release.manifest import Manifest, role_name
from phase.trust import clock
from phase.trust import floor as floors
from phase.trust.floor import Kept


class Remembered:
    """The floors of one boot: of the image, the firmware, the disk, and of this boot itself.

    Args:
        machine: whose.
        root: the root that its image trusts.

    Raises:
        TrustError: the floor that was built into the image is damaged.
    """

    def __init__(self, machine: Machine, root: bytes) -> None:
        self._machine = machine
        #: Whose seed this is.
        self.publisher = floors.publisher(root)
        #: What was known when this image was built; nothing where it does not say.
        self.baked = _baked(machine)
        #: What this boot itself has seen, in an attempt that came no further.
        self.seen: trust.Floor | None = None
        self.cache: Cache | None = None
        #: What firmware and disk keep; nothing where they keep nothing, or are not to be asked.
        self._firmware: Kept | None = None
        self._disk: Kept | None = None

    def look_at_firmware(self) -> None:
        """Read what the firmware keeps.

        Raises:
            TrustError: there is something, and it cannot be read.
        """
        self._firmware = self._machine.firmware_floors(self.publisher)
        _tell_unreadable("firmware", self._firmware)

    def look_at(self, cache: Cache) -> None:
        """Read what a disk keeps.

        Raises:
            TrustError: there is something, and it cannot be read.
        """
        self._disk = cache.floors()
        self.cache = cache
        _tell_unreadable("cache", self._disk)

    def floors(self) -> list[trust.Floor]:
        """What each place says. A disk's is not to be preferred: it may come from elsewhere."""
        known = [floor for place in (self._disk, self._firmware) if place for floor in place.all]
        return known + [floor for floor in (self.baked, self.seen) if floor is not None]

    def for_what_is_kept(self) -> list[trust.Floor]:
        """What the release on the disk is held to.

        What came to this machine whole, by any place; not a newer one that was seen and never came. Of that
        one only the root counts: what revokes a key does so however little else arrives.
        """
        known = [
            trust.Floor(root=known.root, roots=known.roots, keys=known.keys, meta=known.whole)
            for known in self.floors()
        ]
        return [*known, self.baked] if self.baked else known

    def raise_to(self, floor: trust.Floor, manifest: Manifest, *, write_firmware: bool) -> None:
        """Remember what has been seen, wherever that can be.

        Args:
            floor: of a refresh.
            manifest: which it was for.
            write_firmware: whether the firmware may be written to.
        """
        self.seen = floor
        self._keep(floor, {}, _file(manifest), write_firmware=write_firmware)

    def came_whole(self, manifest: Manifest, *, write_firmware: bool) -> None:
        """Remember that a release is here whole: from now on no older one that is kept boots.

        Args:
            manifest: of the release.
            write_firmware: as of `raise_to`.
        """
        if self.seen is not None:
            file = _file(manifest)
            self._keep(self.seen, {file: manifest.version}, file, write_firmware=write_firmware)

    def suspicion(self, error: PhaseError) -> str:
        """What a disk has to do with a refusal, for people; nothing where it has nothing to do with it.

        Somebody may have prepared it, or it is another machine's; a firmware is not carried about.

        Args:
            error: why a release was refused.
        """
        if self._disk is None or self._disk.all == (trust.Floor(),):
            return ""
        if isinstance(error, trust.ExpiredError) and self.now() > self._now():
            what = f"the time, {self.now():%Y-%m-%d %H:%M}, is from the cache"
        elif isinstance(error, trust.RollbackError):
            what = "the cache is one of the places that remember versions"
        else:
            return ""
        return f"{what}; if its disk is not this machine's, boot with phase.cache=off"

    def now(self) -> datetime:
        """The time, on a machine that may have no clock."""
        return self._now(self._disk.own.time if self._disk else 0, self.seen.time if self.seen else 0)

    def _now(self, *others: int) -> datetime:
        """The time, as image, firmware and clock know it, and others."""
        own = (self.baked.time if self.baked else 0, self._firmware.own.time if self._firmware else 0)
        built = int(self._machine.config("build-time") or b"0")
        return clock.trusted_now(
            build_time=built, last_seen=max(*own, *others, 0), system=self._machine.clock()
        )

    def _keep(self, floor: trust.Floor, whole: dict[str, int], file: str, *, write_firmware: bool) -> None:
        if self.cache and self._disk:
            new = floor._replace(whole={**self._disk.own.whole, **whole})
            if new != self._disk.own and _kept("cache", self.cache.raise_floor, new, self._disk):
                self._disk = self._disk._replace(own=new)
        if self._firmware is not None and write_firmware:
            had = self._firmware.own
            # The time as this machine itself knows it: a disk may say any at which the release still holds.
            new = floors.reduced(floor, {file, *had.meta})._replace(
                whole={**had.whole, **whole}, time=int(self._now().timestamp())
            )
            keep = self._machine.keep_firmware_floor
            if _kept("firmware", keep, self.publisher, new, self._firmware):
                self._firmware = self._firmware._replace(own=new)


def if_it_can(keep: Callable[..., None], *what: object) -> None:
    """Keep something; a place that is full or broken does not stop a boot."""
    try:
        keep(*what)
    except CacheError as error:
        marks.say(str(error))


def _kept(place: str, keep: Callable[..., tuple[str, ...]], *what: object) -> bool:
    """Keep a floor; whether the place could."""
    try:
        forgotten = keep(*what)
    except CacheError as error:
        marks.say(f"{place}: {error}")
        return False
    for name in forgotten:
        marks.say(f"{place}: {name} is no longer kept: it has more than {floors.MAX_PUBLISHERS} publishers")
    return True


def _file(manifest: Manifest) -> str:
    return f"{role_name(manifest.channel, manifest.arch)}.json"


def _tell_unreadable(place: str, kept: Kept | None) -> None:
    for why in kept.unreadable if kept else ():
        marks.say(f"{place}: not of this publisher, and passed over: {why}")


def _baked(machine: Machine) -> trust.Floor | None:
    """The floor that is part of this image: all there is where neither disk nor firmware keeps one."""
    data = machine.config("floor.json")
    hint = "Build the seed anew."
    return None if data is None else floors.parse(data, "/etc/phase/floor.json", hint=hint)
