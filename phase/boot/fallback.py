"""Which release starts: the newest, or the one before where the newest did not come up.

A publisher may name the release before in a manifest. Then a machine with a disk for releases counts, before
each handoff, that it starts the newest; a system that is well clears that. After `TRIES` starts without it,
the seed starts the release before, by the same manifest: that is not a rollback, and every floor stays. The
next manifest begins to count anew.
"""

from phase import marks
from phase.boot.cache import Cache
from phase.boot.remembered import if_it_can
from phase.release.manifest import Manifest, role_name

#: Starts of a release that has not said that it is well, until the one before is started.
TRIES = 2


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
    if (times := cache.tries(name(manifest))) < TRIES:
        return manifest
    marks.say(
        f"release {manifest.release} was started {times} times and did not come up; "
        f"the one before it is started, {manifest.before.release}"
    )
    return manifest.before


def count(manifest: Manifest, cache: Cache | None) -> None:
    """The release of a manifest is about to start; the one before it is not counted."""
    if manifest.before is not None and cache is not None and cache.writable:
        if_it_can(cache.note_try, name(manifest))
