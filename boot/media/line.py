"""The kernel command line of a seed on a medium."""

import re

from boot.errors import BuildError
from phase import cmdline

#: The screen and the first serial line. Linux passes over one that the machine does not have.
_CONSOLES = {
    "x86_64": ("console=tty0", "console=ttyS0,115200"),
    "arm64": ("console=tty0", "console=ttyAMA0,115200"),
}
#: Loaders agree on these: letters, digits and what stands in values.
_PLAIN = re.compile(r"[0-9A-Za-z!#%&()*+,./:;<=>?@\[\]^_{|}~-]+")


def compose(arch: str, *, channel: str, mode: str, words: str = "") -> str:
    """The command line of an entry.

    Args:
        arch: `x86_64` or `arm64`.
        channel: of the releases it boots.
        mode: `internet`, `local` or `private`.
        words: more of it; with a `console=` among them, there is no other.

    Raises:
        BuildError: a word cannot be used, or there are too many.
    """
    given = cmdline.split(words)
    consoles = () if any(word.startswith("console=") for word in given) else _CONSOLES[arch]
    all_words = [*consoles, "quiet", f"phase.channel={channel}", f"phase.mode={mode}", *given]
    for word in all_words:
        if not _PLAIN.fullmatch(word):
            raise BuildError(f"{word!r} cannot be on a medium: loaders differ in how they read it")
    line = " ".join(all_words)
    if remarks := cmdline.remarks(line):
        raise BuildError(f"no medium with this command line: {remarks[0]}")
    if len(line.encode()) > cmdline.MAX_LINE:
        raise BuildError(f"the command line has {len(line.encode())} bytes; {cmdline.MAX_LINE} is the most")
    return line
