"""Compiled modules of this user, so that a module is compiled once: the parent's side.

A compiled module is machine code, and who loads one runs it. So

- an entry is named by the hash of the module, the engine's version, its settings and the processor. The
  parent computes the name from the module that it has; a worker cannot choose it. A worker that its module
  has taken over while it was compiled can spoil the entry of that module, and no other.
- entries are loaded by workers in their cages only, for a job of the very module: what a spoilt entry does
  there, the module could do itself.
- an entry is authenticated (HMAC-SHA256 of name and content) by a key that this user alone can read. So half
  an entry, one of another name and one that somebody has put there are not loaded.
- directory, key and entries belong to this user, and no other user may write to them; else none is used.

Entries are written beside and renamed. Where there are too many bytes, those go that were not used for the
longest time.
"""

import contextlib
import hashlib
import hmac
import os
import stat
import threading
import time
from collections import OrderedDict

from phase.errors import PhaseError, printable
from phase.jobs import location, settings

#: Limit for the entries of a directory, bytes; and for how many there are.
DISK_BYTES, MAX_ENTRIES = 512 << 20, 4096
#: Machine code of a module is about four times as long as the module, by the programs of the tests.
_RATIO, _LEAST, _MOST = 16, 1 << 20, 128 << 20
_KEY, _KEY_BYTES, _TAG_BYTES = "key", 32, 32
_SUFFIX = ".compiled"
#: Seconds after which a use of an entry is noted anew; and after which a file that is half written is left
#: over from a writer that died.
_NOTED, _ABANDONED = 60.0, 3600.0
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class CacheError(PhaseError):
    """Others could fill a directory of compiled modules, or its key is broken. Jobs run without it."""


def entry_bytes(module: int) -> int:
    """How long the entry of a module may be at most, for the length of the module."""
    return min(_LEAST + _RATIO * module, _MOST)


def name(module_sha256: str) -> str:
    """The name of a module's entry, for the engine and the processor of this machine."""
    parts = ("1", location.VERSION, location.machine(), settings.described(), module_sha256)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def usual_directory() -> str:
    """Where this user's compiled modules are: `XDG_CACHE_HOME` or its default; for root in /var/cache."""
    found = os.environ.get("XDG_CACHE_HOME")
    if not found:
        found = "/var/cache" if os.geteuid() == 0 else os.path.expanduser("~/.cache")
    return os.path.join(found, "phase", "compiled")


class Directory:
    """Entries on disk.

    Args:
        path: of the directory; it is made if it does not exist.
        most: limit for all entries, bytes.

    Raises:
        CacheError: others can write to it, or its key is broken.
        OSError: it cannot be made.
    """

    def __init__(self, path: str, most: int = DISK_BYTES) -> None:
        self._most = most
        with contextlib.suppress(FileExistsError):
            os.makedirs(path, mode=0o700)
        self._directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not _ours(os.fstat(self._directory)):
                raise CacheError(
                    f"{printable(path)} must belong to this user, and be closed to others (mode 700)"
                )
            self._key = self._own_key()
        except BaseException:
            os.close(self._directory)
            raise

    def close(self) -> None:
        """Close the directory."""
        os.close(self._directory)

    def get(self, entry: str, most: int) -> bytes | None:
        """The content of an entry; None without one that is whole and ours.

        Args:
            entry: its name.
            most: bytes that it may have.
        """
        try:
            found = self._read(entry + _SUFFIX, most + _TAG_BYTES, noted=True)
        except OSError:
            return None
        tag, data = found[:_TAG_BYTES], found[_TAG_BYTES:]
        if hmac.compare_digest(tag, self._tag(entry, data)):
            return data
        self._remove(entry + _SUFFIX)
        return None

    def put(self, entry: str, data: bytes) -> None:
        """Keep an entry, if the disk takes it."""
        beside = f"{entry}.{os.getpid()}-{threading.get_ident()}.new"
        try:
            self._write(beside, self._tag(entry, data) + data)
            try:
                os.rename(beside, entry + _SUFFIX, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            except OSError:
                self._remove(beside)
                raise
            self._trim()
        except OSError:
            return

    def _tag(self, entry: str, data: bytes) -> bytes:
        return hmac.digest(self._key, entry.encode() + data, "sha256")

    def _own_key(self) -> bytes:
        with contextlib.suppress(FileNotFoundError):
            return self._read_key()
        beside = f"{_KEY}.{os.getpid()}-{threading.get_ident()}.new"
        self._write(beside, os.urandom(_KEY_BYTES))
        try:
            # A link and not a rename: of two that make the key at once, one wins.
            with contextlib.suppress(FileExistsError):
                os.link(beside, _KEY, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        finally:
            self._remove(beside)
        return self._read_key()

    def _read_key(self) -> bytes:
        try:
            key = self._read(_KEY, _KEY_BYTES, links=2)
        except PermissionError as error:
            raise CacheError(f"the key of the compiled modules: {error}") from error
        if len(key) != _KEY_BYTES:
            self._remove(_KEY)  # half of one; the next user makes a new one
            raise CacheError("the key of the compiled modules was not whole; it is removed")
        return key

    def _read(self, file: str, most: int, *, noted: bool = False, links: int = 1) -> bytes:
        descriptor = os.open(file, _OLD, dir_fd=self._directory)
        try:
            found = os.fstat(descriptor)
            plain = stat.S_ISREG(found.st_mode) and found.st_nlink <= links
            if not plain or not _ours(found) or found.st_size > most:
                raise PermissionError(f"{file} is not a file of this user alone")
            if noted and time.time() - found.st_mtime > _NOTED:
                os.utime(descriptor)
            parts = []
            while part := os.read(descriptor, most + 1):
                parts.append(part)
            return b"".join(parts)
        finally:
            os.close(descriptor)

    def _write(self, file: str, data: bytes) -> None:
        descriptor = os.open(file, _NEW, 0o600, dir_fd=self._directory)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        except OSError:
            self._remove(file)
            raise
        finally:
            os.close(descriptor)

    def _remove(self, file: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(file, dir_fd=self._directory)

    def _trim(self) -> None:
        """Remove the entries that were not used for the longest time, and what writers left that died."""
        entries = []
        with os.scandir(self._directory) as found:
            for each in found:
                with contextlib.suppress(OSError):
                    status = each.stat(follow_symlinks=False)
                    if each.name.endswith(_SUFFIX):
                        entries.append((status.st_mtime, status.st_size, each.name))
                    elif each.name.endswith(".new") and time.time() - status.st_mtime > _ABANDONED:
                        self._remove(each.name)
        total, left = sum(size for _, size, _ in entries), len(entries)
        for _, size, file in sorted(entries):
            if total <= self._most and left <= MAX_ENTRIES:
                return
            self._remove(file)
            total, left = total - size, left - 1


class Cache:
    """Compiled modules, in memory and on disk. Threads may use it at the same time.

    Args:
        directory: on disk; None for memory alone.
        memory_bytes: limit for what is held in memory, for a program that runs many jobs.
    """

    def __init__(self, directory: Directory | None = None, memory_bytes: int = 0) -> None:
        self._directory = directory
        self._most = memory_bytes
        self._held: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, entry: str, most: int) -> bytes | None:
        """The content of an entry, or None.

        Args:
            entry: its name (`name`).
            most: bytes that it may have.
        """
        with self._lock:
            if (held := self._held.get(entry)) is not None:
                self._held.move_to_end(entry)
                return held
        found = self._directory.get(entry, most) if self._directory else None
        if found is not None:
            self._hold(entry, found)
        return found

    def put(self, entry: str, data: bytes) -> None:
        """Keep an entry."""
        self._hold(entry, data)
        if self._directory:
            self._directory.put(entry, data)

    def _hold(self, entry: str, data: bytes) -> None:
        if len(data) > self._most:
            return
        with self._lock:
            self._bytes += len(data) - len(self._held.pop(entry, b""))
            self._held[entry] = data
            while self._bytes > self._most:
                _, dropped = self._held.popitem(last=False)
                self._bytes -= len(dropped)


def _ours(found: os.stat_result) -> bool:
    return found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o077
