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
        "an update is only looked for",
        "phase/cli/update.py",
        "        update.start_newer()\n",
        "        pass\n",
        UPDATE,
    ),
    Mutant(
        "a release that does not come up is started for ever",
        "phase/boot/fallback.py",
        "(times := cache.tries(name(manifest))) < TRIES",
        "(times := cache.tries(name(manifest))) < TRIES * 9",
        FALLBACK,
    ),
    Mutant(
        "starts are not counted",
        "phase/boot/fallback.py",
        "        if_it_can(cache.note_try, name(manifest))\n",
        "        pass\n",
        FALLBACK,
    ),
    Mutant(
        "the next release is counted with the one that failed",
        "phase/boot/fallback.py",
        '.{manifest.version} {rootfs}"',
        '.any any"',
        FALLBACK,
    ),
)
