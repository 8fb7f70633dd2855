"""What makes an update a newer release, and what leaves one that does not come up."""

from tests.mutants.mutant import Mutant

UPDATE = ("tests/phase/boot/test_update.py", "tests/phase/boot/test_update_command.py")
FALLBACK = ("tests/phase/boot/test_fallback.py",)

MUTANTS = (
    Mutant(
        "the release that runs is newer than itself",
        "phase/boot/update.py",
        "manifest.version > self._runs",
        "manifest.version >= self._runs",
        UPDATE,
    ),
    Mutant(
        "an update is not remembered",
        "phase/boot/update.py",
        "            self.open_cache()\n",
        "",
        UPDATE,
    ),
    Mutant(
        "a release is remembered before its artifacts are on the disk",
        "phase/boot/cache.py",
        "                self._write_down(artifact)\n",
        "                pass\n",
        ("tests/phase/boot/test_cuts.py",),
    ),
    Mutant(
        "an update is only looked for",
        "phase/cli/update.py",
        "        update.start_newer()\n",
        "        pass\n",
        UPDATE,
    ),
    Mutant(
        "a release that does not come up is started for ever",
        "phase/boot/fallback.py",
        "tries.starts < TRIES:\n        return manifest",
        "tries.starts < TRIES * 9:\n        return manifest",
        FALLBACK,
    ),
    Mutant(
        "starts are not counted",
        "phase/boot/fallback.py",
        "    if_it_can(cache.note_tries, name(manifest), new)\n",
        "",
        FALLBACK,
    ),
    Mutant(
        "a release that a power cut kept from coming up is never started again",
        "phase/boot/fallback.py",
        "tries.before >= 1 << doubled",
        "tries.before >= 1 << 99",
        FALLBACK,
    ),
    Mutant(
        "a release that does not come up has another chance each other time",
        "phase/boot/fallback.py",
        "tries.before >= 1 << doubled",
        "tries.before >= 1",
        FALLBACK,
    ),
    Mutant(
        "a release that dies at once is well",
        "phase/boot/healthy.py",
        "            steady = serves()\n        if not",
        "        if not",
        FALLBACK,
    ),
    Mutant(
        "the release before is watched",
        "phase/boot/fallback.py",
        "counted = started is manifest and ",
        "counted = ",
        FALLBACK,
    ),
    Mutant(
        "a release that is never well is petted for ever",
        "boot/files/watchdog",
        "        waited=$((waited + 5))\n",
        "        waited=0\n",
        ("tests/boot/test_watchdog.py",),
    ),
    Mutant(
        "the next release is counted with the one that failed",
        "phase/boot/fallback.py",
        '.{manifest.version} {rootfs}"',
        '.any any"',
        FALLBACK,
    ),
)
