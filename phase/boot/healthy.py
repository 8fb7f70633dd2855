"""A system says that it is well: the disk that counts its starts forgets them.

Started by the system's provider script, after the job that the boot was asked for. A release is well when
its provider serves it, and half a minute later still does. One that dies later is restarted, by its watchdog
or by `panic=`, and is not counted: then it is rarely the release.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from phase import cmdline, marks, modes
from phase.boot import fallback, update
from phase.boot.machine import Machine
from phase.errors import PhaseError
from phase.fetch import Client
from phase.release.described import read
from phase.release.manifest import Manifest, role_name
from phase.trust import floor as floors

#: Seconds until a system that does not serve is not well.
PATIENCE = 300.0
#: Seconds for which it has to serve.
STEADY = 30.0
_PROVIDER = "http://127.0.0.1:8080"


def main(
    machine: Machine | None = None, release: Path = update.RELEASE, serves: Callable[[], bool] | None = None
) -> int:
    """Wait until this system serves, and say so; the exit code.

    Args:
        machine: the system's; the one this runs on when left out.
        release: directory of the release that runs.
        serves: whether it serves; waits for it.
    """
    try:
        machine = machine or update.Running(release)
        files = update.metadata(release)
        manifest = counted(machine, files)
        if manifest is None:
            return 0
        serves = serves or _serves
        steady = serves()
        if steady:
            # One that dies at once is not well, whatever it has said.
            machine.sleep(STEADY)
            steady = serves()
        if not steady:
            raise PhaseError("this release does not serve; its starts are still counted")
        found = machine.open_cache(floors.publisher(update.first_root(files)), writable=True)
        if found is None:
            return 0
        try:
            found[1].note_well(fallback.name(manifest))
        finally:
            machine.close_cache()
    except (PhaseError, OSError) as error:
        marks.say(f"not known to be well: {error}")
        return 1
    marks.say(f"release {manifest.release} is well")
    return 0


def counted(machine: Machine, files: dict[str, bytes]) -> Manifest | None:
    """The release that runs, if its starts are counted on a disk of this machine.

    Args:
        machine: the system's.
        files: the metadata that the seed has verified.
    """
    parameters = cmdline.parse(machine.command_line())
    if not modes.of(parameters.mode).disks or not parameters.cache or parameters.nowrite:
        return None
    role = role_name(parameters.channel, machine.arch)
    versions = [name for name in files if name.endswith(f".{role}.json")]
    for name in versions:
        manifest = read(role, files[name])
        if manifest is None or manifest.before is None:
            continue
        # The release before it has the same metadata.
        if manifest.rootfs is not None and manifest.rootfs.sha256 == parameters.rootfs:
            return manifest
    return None


def _serves() -> bool:
    """Wait until the provider of this system says that it is healthy."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            with Client([_PROVIDER], timeout=10.0) as client:
                client.get("/health", 1 << 20)
                return True
        except PhaseError:
            time.sleep(2.0)
    return False


if __name__ == "__main__":
    sys.exit(main())
