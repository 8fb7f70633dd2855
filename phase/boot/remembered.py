"""What the places of a machine remember: versions below which nothing is trusted, and the time."""

from collections.abc import Callable
from datetime import datetime

from phase import marks, trust
from phase.boot.cache import Cache
from phase.boot.errors import CacheError
from phase.boot.machine import Machine
from phase.trust import clock
from phase.trust import floor as floors


class Remembered:
    """The floors of one boot: of the image, the firmware, the disk, and of this boot itself.

    Args:
        machine: whose.

    Raises:
        TrustError: the floor that was built into the image is damaged.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        #: What was known when this image was built; nothing where it does not say.
        self.baked = _baked(machine)
        #: What the firmware keeps; nothing where it keeps nothing, or is not to be asked.
        self.firmware: trust.Floor | None = None
        #: What this boot itself has seen, in an attempt that came no further.
        self.seen: trust.Floor | None = None
        self.cache: Cache | None = None

    def floors(self) -> list[trust.Floor]:
        """What each place says. A disk's is not to be preferred: it may come from elsewhere."""
        known = [self.cache.floor()] if self.cache else []
        return known + [floor for floor in (self.baked, self.firmware, self.seen) if floor is not None]

    def for_what_is_kept(self) -> list[trust.Floor]:
        """What the release on the disk is held to.

        Its own versions, not those of a newer release that was seen and never came here whole. Of that
        one only the root counts: what revokes a key does so however little else arrives.
        """
        known = [trust.Floor(root=known.root, roots=known.roots, time=known.time) for known in self.floors()]
        return [*known, self.baked] if self.baked else known

    def raise_to(self, floor: trust.Floor, *, write_firmware: bool) -> None:
        """Remember what has been seen, wherever that can be."""
        self.seen = floor
        if self.cache:
            if_it_can(self.cache.raise_floor, floors.replacing(floor, self.cache.floor()))
        if self.firmware is not None and write_firmware:
            if_it_can(self._machine.keep_firmware_floor, floor, self.firmware)

    def now(self) -> datetime:
        """The time, on a machine that may have no clock."""
        seen = max((floor.time for floor in self.floors()), default=0)
        built = int(self._machine.config("build-time") or b"0")
        return clock.trusted_now(build_time=built, last_seen=seen, system=self._machine.clock())


def if_it_can(keep: Callable[..., None], *what: object) -> None:
    """Keep something; a place that is full or broken does not stop a boot."""
    try:
        keep(*what)
    except CacheError as error:
        marks.say(str(error))


def _baked(machine: Machine) -> trust.Floor | None:
    """The floor that is part of this image: all there is where neither disk nor firmware keeps one."""
    data = machine.config("floor.json")
    return None if data is None else floors.parse(data, "/etc/phase/floor.json")
