"""What a mirror sees to before it says that it has something."""

from tests.mutants.mutant import Mutant

MIRROR = ("tests/phase/mirror/test_mirror.py",)

MUTANTS = (
    Mutant(
        "a mirror that has no place serves an empty directory",
        "boot/files/daemon",
        "            sleep 10\n            exit 1\n",
        "            true\n",
        ("tests/boot/test_daemon.py",),
    ),
    Mutant(
        "a mirror gives up what it had for what came",
        "phase/mirror/mirror.py",
        "if not lost and whole:",
        "if whole:",
        MIRROR,
    ),
    Mutant(
        "a mirror says what has not come",
        "phase/mirror/mirror.py",
        "if name not in failed}",
        "}",
        MIRROR,
    ),
    Mutant(
        "a mirror remembers no more than its notes",
        "phase/mirror/filling.py",
        "others=(*known.others, *here),",
        "others=known.others,",
        MIRROR,
    ),
    Mutant(
        "a publisher's directory is mirrored into",
        "phase/mirror/mirror.py",
        "if (self.directory / staging.PLACE).exists():",
        "if False:",
        MIRROR,
    ),
)
