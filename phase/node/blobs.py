"""Modules and inputs that clients have sent, by their SHA-256, so that they need not send them again.

Each client has its own: who knows the hash of another's input, from a receipt for example, may not have the
node read it out.

Files in one directory, the longest unused removed first. Every file is hashed again when it is read: a power
cut, or anybody else with access to the directory, changes nothing that runs. Any thread may use the store;
`has` and `here` never wait for the disk.
"""

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable
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
        self._counting = threading.Lock()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, size in _found(directory):
            self._sizes[name] = size
        self._held = sum(self._sizes.values())
        self._remembered = 0
        self._discard(self._too_many(0))

    def has(self, client: str, sha256: str) -> bool:
        """Whether it is there."""
        name = _name(client, sha256)
        return name in self._memory or name in self._sizes

    def here(self, client: str, sha256: str) -> bytes | None:
        """The bytes of a client's blob, if they are in memory."""
        name = _name(client, sha256)
        with self._counting:
            data = self._memory.get(name)
            if data is not None:
                self._memory.move_to_end(name)
            return data

    def get(self, client: str, sha256: str) -> bytes | None:
        """The bytes of a client's blob; None if it is not there, or is damaged."""
        data = self.here(client, sha256)
        name = _name(client, sha256)
        size = self._sizes.get(name)
        if data is not None or size is None:
            return data
        data = self._read(name, size, sha256)
        with self._counting:
            if data is not None:
                if name in self._sizes:
                    self._sizes.move_to_end(name)
                self._remember(name, data)
                return data
            self._forget(name)
        self._discard([name])
        return None

    def put(self, client: str, sha256: str, data: bytes) -> None:
        """Keep a blob whose hash the caller has checked. Where the disk does not take it, memory has it.

        Args:
            client: who brought it.
            sha256: hex.
            data: its bytes.
        """
        name, size = _name(client, sha256), _taken_up(len(data))
        with self._counting:
            self._remember(name, data)
            if name in self._sizes or len(data) > self._disk_bytes:
                return
            gone = self._too_many(size)
        self._discard(gone)
        temporary = self._directory / f".{os.urandom(8).hex()}.tmp"
        try:
            # Not synced: a blob that a power cut damages is found out when it is read.
            temporary.write_bytes(data)
            temporary.replace(self._directory / name)
        except OSError:
            temporary.unlink(missing_ok=True)
            return
        with self._counting:
            # Another thread may have brought the same.
            self._held += size - self._sizes.get(name, 0)
            self._sizes[name] = size

    def _read(self, name: str, size: int, sha256: str) -> bytes | None:
        try:
            opened = files.open_plain(self._directory / name)
        except OSError:
            return None
        with open(opened, "rb") as file:
            data = file.read(size + 1)
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

    def _too_many(self, size: int) -> list[str]:
        """Those that must go for so many bytes, counted no more."""
        gone = []
        while self._sizes and (self._held + size > self._disk_bytes or len(self._sizes) >= MAX_BLOBS):
            gone.append(next(iter(self._sizes)))
            self._forget(gone[-1])
        return gone

    def _forget(self, name: str) -> None:
        self._held -= self._sizes.pop(name, 0)
        self._remembered -= len(self._memory.pop(name, b""))

    def _discard(self, names: Iterable[str]) -> None:
        for name in names:
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
