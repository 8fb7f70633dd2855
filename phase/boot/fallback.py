"""Which release starts: the newest, or the one before where the newest did not come up.

A publisher may name the release before in a manifest. Then a machine with a disk for releases counts, before
each handoff, that it starts the newest; a system that is well clears that. After `TRIES` starts without it,
the seed starts the release before, by the same manifest: that is not a rollback, and every floor stays.

It may have been the power that failed, and not the release. So the newest has another chance, one at a time,
after 1, 2, 4 and so on starts of the release before. The next manifest begins to count anew.
"""

from phase import marks
from phase.boot.cache import Cache, Tries
from phase.boot.remembered import if_it_can
from phase.release.manifest import Manifest, role_name

#: Starts of a release that has not said that it is well, until the one before is started.
TRIES = 2
#: Doublings of the starts of the release before, until the newest has another chance.
_MOST_DOUBLED = 10


def name(manifest: Manifest) -> str:
    """What the starts of a release are counted by; the rootfs is what a system knows of itself."""
    rootfs = manifest.rootfs.sha256 if manifest.rootfs is not None else ""
    return f"{role_name(manifest.channel, manifest.arch)}.{manifest.version} {rootfs}"


def chosen(manifest: Manifest, cache: Cache | None) -> Manifest:
    """The release to start: of a manifest, or the one before it.

    Args:
        manifest: verified.
        cache: the disk that counts, where there is one.
    """
    if manifest.before is None or cache is None or not cache.writable:
        return manifest
    tries = cache.tries(name(manifest))
    if tries.starts < TRIES:
        return manifest
    said = f"release {manifest.release} was started {tries.starts} times and did not come up"
    if _has_another_chance(tries):
        marks.say(f"{said}; it has another chance")
        return manifest
    marks.say(f"{said}; the one before it is started, {manifest.before.release}")
    return manifest.before


def watched(manifest: Manifest, started: Manifest, cache: Cache | None, seconds: int) -> tuple[str, ...]:
    """Words for the next kernel's line: a system whose start is counted restarts the machine if it hangs.

    Args:
        manifest: as of `count`.
        started: the same.
        cache: the same.
        seconds: of `phase.watchdog=`.
    """
    counted = started is manifest and manifest.before is not None and cache is not None and cache.writable
    return (f"phase.watched={seconds}",) if counted and seconds else ()


def count(manifest: Manifest, started: Manifest, cache: Cache | None) -> None:
    """A release is about to start.

    Args:
        manifest: that was verified.
        started: what `chosen` said: this one, or the one before it.
        cache: the disk that counts, where there is one.
    """
    if manifest.before is None or cache is None or not cache.writable:
        return
    tries = cache.tries(name(manifest))
    if started is manifest:
        new = Tries(tries.starts + 1)
    elif tries.starts >= TRIES:
        new = tries._replace(before=tries.before + 1)
    else:
        return
    if_it_can(cache.note_tries, name(manifest), new)


def _has_another_chance(tries: Tries) -> bool:
    doubled = min(tries.starts - TRIES, _MOST_DOUBLED)
    return bool(tries.before >= 1 << doubled)
