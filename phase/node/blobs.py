"""Modules and inputs that clients have sent, by their SHA-256, so that they need not send them again.

Each client has its own: who knows the hash of another's input, from a receipt for example, may not have the
node read it out.

Files in one directory, the longest unused removed first. Every file is hashed again when it is read: a power
cut, or anybody else with access to the directory, changes nothing that runs.
"""

import hashlib
import os
from collections import OrderedDict
from pathlib import Path

from phase import files

#: Bytes of all files, and of those kept in memory beside; and how many there may be.
DISK_BYTES, MEMORY_BYTES, MAX_BLOBS = 512 << 20, 64 << 20, 4096
#: What a file takes up at least, and in steps of, on most file systems.
_BLOCK = 4096


class Blobs:
    """The store.

    Args:
        directory: made if it does not exist.
        disk_bytes: of all files together.
        memory_bytes: of the copies in memory.

    Raises:
        OSError: the directory cannot be made or read.
    """

    def __init__(
        self, directory: Path, *, disk_bytes: int = DISK_BYTES, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        self._directory = directory
        self._disk_bytes, self._memory_bytes = disk_bytes, memory_bytes
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._memory: OrderedDict[str, bytes] = OrderedDict()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, size in _found(directory):
            self._sizes[name] = size
        self._held = sum(self._sizes.values())
        self._remembered = 0
        self._make_room(0)

    def has(self, client: str, sha256: str) -> bool:
        """Whether it is there."""
        name = _name(client, sha256)
        return name in self._memory or name in self._sizes

    def get(self, client: str, sha256: str) -> bytes | None:
        """The bytes of a client's blob; None if it is not there, or is damaged."""
        name = _name(client, sha256)
        data = self._memory.get(name)
        if data is not None:
            self._memory.move_to_end(name)
            return data
        if name not in self._sizes:
            return None
        data = self._read(name, sha256)
        if data is None:
            self._remove(name)
            return None
        self._sizes.move_to_end(name)
        self._remember(name, data)
        return data

    def put(self, client: str, sha256: str, data: bytes) -> None:
        """Keep a blob whose hash the caller has checked. Where the disk does not take it, memory has it.

        Args:
            client: who brought it.
            sha256: hex.
            data: its bytes.
        """
        name = _name(client, sha256)
        self._remember(name, data)
        if name in self._sizes or len(data) > self._disk_bytes:
            return
        self._make_room(_taken_up(len(data)))
        temporary = self._directory / f".{os.urandom(8).hex()}.tmp"
        try:
            # Not synced: a blob that a power cut damages is found out when it is read.
            temporary.write_bytes(data)
            temporary.replace(self._directory / name)
        except OSError:
            temporary.unlink(missing_ok=True)
            return
        self._sizes[name] = _taken_up(len(data))
        self._held += self._sizes[name]

    def _read(self, name: str, sha256: str) -> bytes | None:
        try:
            opened = files.open_plain(self._directory / name)
        except OSError:
            return None
        with open(opened, "rb") as file:
            data = file.read(self._sizes[name] + 1)
        return data if hashlib.sha256(data).hexdigest() == sha256 else None

    def _remember(self, name: str, data: bytes) -> None:
        if name not in self._memory:
            self._remembered += len(data)
        self._memory[name] = data
        self._memory.move_to_end(name)
        while (self._remembered > self._memory_bytes or len(self._memory) > MAX_BLOBS) and len(
            self._memory
        ) > 1:
            self._remembered -= len(self._memory.popitem(last=False)[1])

    def _make_room(self, size: int) -> None:
        while self._sizes and (self._held + size > self._disk_bytes or len(self._sizes) >= MAX_BLOBS):
            self._remove(next(iter(self._sizes)))

    def _remove(self, name: str) -> None:
        self._held -= self._sizes.pop(name, 0)
        self._remembered -= len(self._memory.pop(name, b""))
        (self._directory / name).unlink(missing_ok=True)


def _name(client: str, sha256: str) -> str:
    return hashlib.sha256(f"{client}\n{sha256}".encode()).hexdigest()


def _taken_up(length: int) -> int:
    """Bytes that a file takes up on a disk."""
    return -(-max(length, 1) // _BLOCK) * _BLOCK


def _found(directory: Path) -> list[tuple[str, int]]:
    """Names and sizes of the blobs there, the longest unused first; half-written ones are removed."""
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if len(entry.name) == 64 and entry.is_file(follow_symlinks=False):
                status = entry.stat(follow_symlinks=False)
                found.append((status.st_mtime, entry.name, _taken_up(status.st_size)))
            elif entry.name.endswith(".tmp"):
                Path(entry.path).unlink(missing_ok=True)
    return [(name, size) for _, name, size in sorted(found)]
