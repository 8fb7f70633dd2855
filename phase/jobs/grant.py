"""The files that a job may have: what its worker must know before it closes its cage.

A job has no files unless it says so. Then it may have directories of the machine, and a file system in
memory with its inputs (`/input`), its outputs (`/output`) and room for what it needs meanwhile (`/tmp`).
"""

#: Where a job finds them.
INPUT, OUTPUT, SCRATCH = "/input", "/output", "/tmp"  # noqa: S108 - of the job, not of the machine
#: Most that may be given.
MAX_DIRECTORIES, MAX_FILES = 16, 256
_PAGE = 4096


class Grant:
    """The files of one job.

    Args:
        memory_bytes: quota of its file system in memory; 0 for none.
        directories: of the machine: the absolute path of each, and whether the job may write there.
    """

    def __init__(self, memory_bytes: int = 0, directories: tuple[tuple[str, bool], ...] = ()) -> None:
        self.memory_bytes, self.directories = memory_bytes, directories

    @property
    def empty(self) -> bool:
        """Whether it grants nothing."""
        return not self.memory_bytes and not self.directories

    @property
    def writable(self) -> bool:
        """Whether the job may write to a directory of the machine."""
        return any(writable for _, writable in self.directories)

    def words(self) -> list[str]:
        """As arguments of a program."""
        return [str(self.memory_bytes), *(("rw" if w else "ro") + path for path, w in self.directories)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Grant) and self.words() == other.words()

    def __hash__(self) -> int:
        return hash(tuple(self.words()))


def read(words: list[str]) -> Grant:
    """A grant from its words; without words, nothing is granted."""
    if not words:
        return Grant()
    return Grant(int(words[0]), tuple((word[2:], word[:2] == "rw") for word in words[1:]))


def pages(size: int) -> int:
    """What a file of so many bytes takes in memory, with its name and the kernel's record of it."""
    return (size // _PAGE + 2) * _PAGE
