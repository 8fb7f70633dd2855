"""What a seed keeps from one boot to the next, on an ext4 file system labelled `phase-cache`.

    floor-{publisher}.json  versions below which nothing is trusted, and the latest time seen
    metadata-{publisher}/   of its last release that came here whole, and every root seen since
    tries-{publisher}       how often a release was started that has not said since that it is well, and
                            how often the one before it since then
    blobs/sha256/{hex}      artifacts of the last release, of the one before it if its manifest names that,
                            and of one that is on its way

A publisher is called by the root that was trusted first. An artifact is called by the hash of what is
verified of it, its length and the hashes of its chunks: by the hash of the whole, which is not looked at
here, another role could take its place.

Nothing here is believed. Metadata is verified as if a provider had sent it. Artifacts are copied to
where they will be booted from and verified there, chunk by chunk: what a power cut left out or a disk
lost is fetched again. Of what is lost only the floor matters, and that file is whole or absent. The disk
may come from elsewhere: no link on it is followed, and only regular files are read.
"""

import contextlib
import ctypes
import os
import stat
import struct
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from phase import files
from phase.boot import mounts
from phase.boot.errors import CacheError
from phase.release.manifest import Artifact
from phase.trust import Floor, FormatError, NotFoundError
from phase.trust import floor as floors
from phase.trust.floor import Kept

LABEL = "phase-cache"
#: The superblock: where it starts, where in it are the magic number and the label, all in bytes.
#: Source: Linux Documentation/filesystems/ext4/super.rst.
_SUPERBLOCK, _MAGIC_AT, _MAGIC, _LABEL_AT, _LABEL_BYTES = 1024, 0x38, 0xEF53, 0x78, 16
_MAX_DEVICES = 128
#: What is read back of the metadata, at most: files, bytes of each, and bytes of all.
_MAX_FILES, _MAX_FILE, _MAX_ALL = 300, 5_000_000, 20_000_000
#: Of the file that counts starts, bytes, and of a number in it, digits.
_MAX_NAME, _MAX_DIGITS = 256, 6
_COPY = 1 << 20
_SYS = "/sys/class/block"
#: The power may go at any time. A file's length is on the disk only with the next commit, and that waits for
#: blocks to be allocated: by default what arrived in the last half minute would be lost.
_WRITING = "errors=remount-ro,commit=1,nodelalloc"
_MODULES = "/etc/modules-cache"
#: MS_NOSYMFOLLOW of mount(2). Linux before 5.10 does not know it, and passes over it.
_NOSYMFOLLOW = 256


class Tries(NamedTuple):
    """Starts of a release that has not said since that it is well.

    Attributes:
        starts: of the release.
        before: of the one before it, since the last of those.
    """

    starts: int = 0
    before: int = 0


class Cache:
    """A cache in a directory.

    Args:
        directory: where the file system is mounted.
        publisher: whose seed this is, as `phase.trust.floor.publisher` returns it.
        writable: whether anything is kept; otherwise it is only read.

    Raises:
        CacheError: one of its directories is something else, such as a link, or cannot be made.
    """

    def __init__(self, directory: Path, publisher: str, *, writable: bool = True) -> None:
        self.writable = writable
        self._directory = directory
        self._publisher = publisher
        self._metadata = directory / f"metadata-{publisher}"
        self._tried = directory / f"tries-{publisher}"
        self._blobs = directory / "blobs" / "sha256"
        for path in (self._metadata, self._blobs.parent, self._blobs):
            _directory(path, make=writable)

    def floors(self) -> Kept:
        """What is remembered here.

        Raises:
            TrustError: this publisher's floor is damaged: a person has to decide.
        """
        try:
            return floors.load_all(self._directory, self._publisher)
        except FormatError as error:
            raise FormatError(
                f"the cache's {error.what}",
                hint="It keeps old releases out; phase.cache=off boots without it. Remove it on that disk "
                "only if you know that no older release can be offered here.",
            ) from error

    def raise_floor(self, floor: Floor, had: Kept) -> tuple[str, ...]:
        """Remember what has been seen; from here on nothing older is trusted.

        Args:
            floor: the new one.
            had: what `floors` returned.

        Returns:
            Names of what other publishers had here and was removed, since there were too many.

        Raises:
            CacheError: it cannot be written.
        """
        if not self.writable:
            return ()
        try:
            forgotten = floors.keep(self._directory, self._publisher, floor, had)
            for name in forgotten:
                _remove(self._directory / f"metadata-{floors.publisher_of(name)}")
        except OSError as error:
            raise CacheError(f"the floor cannot be kept: {error.strerror}") from error
        return forgotten

    def metadata(self) -> dict[str, bytes]:
        """Metadata of the last whole release: file name to content, all of it unverified."""
        found: dict[str, bytes] = {}
        room = _MAX_ALL
        try:
            names = sorted(name for name in os.listdir(self._metadata) if name.endswith(".json"))
        except OSError:
            return {}  # there is none, or the file system is damaged
        for name in names[:_MAX_FILES]:
            try:
                found[name] = _read(self._metadata / name, min(_MAX_FILE, room))
            except OSError:
                continue  # a damaged file is a missing one
            room -= len(found[name])
        return found

    def get(self, name: str, limit: int) -> bytes:
        """One metadata file, as `phase.trust.refresh` asks a provider for it.

        Raises:
            NotFoundError: it is not here.
        """
        try:
            return _read(self._metadata / name, limit + 1)
        except OSError as error:
            raise NotFoundError(f"the cache has no {name}") from error

    def open(self, name: str, needed: int, keep: Collection[str]) -> int | None:
        """An artifact's file, for reading and, where the cache can be written, for writing.

        Args:
            name: its `content`.
            needed: bytes it will have.
            keep: names of the artifacts that stay when room has to be made.

        Returns:
            A file descriptor; None if there is neither such a file nor room for one.
        """
        path = self._blobs / name
        try:
            if not self.writable:
                return floors.open_plain(path)
            there = path.lstat().st_blocks * 512 if os.path.lexists(path) else 0
            if self._free() + there < needed:
                self.prune(keep)
            if self._free() + there < needed:
                return None
            return floors.open_plain(path, os.O_RDWR | os.O_CREAT)
        except OSError:
            return None

    def open_kept(self, artifact: Artifact) -> int:
        """A file that an earlier boot has kept, for reading.

        Raises:
            OSError: it is not here, or is not a regular file.
        """
        return floors.open_plain(self._blobs / artifact.content)

    def keep_roots(self, metadata: Mapping[str, bytes]) -> None:
        """Keep the chain of roots, whether or not the rest of their release ever comes here.

        Args:
            metadata: file name to content, verified; the rest of it is passed over.

        Raises:
            CacheError: it cannot be written.
        """
        if not self.writable:
            return
        try:
            for name, data in metadata.items():
                if name.endswith(".root.json"):
                    _replace(self._metadata / name, data)
        except OSError as error:
            raise CacheError(f"the roots cannot be kept: {error.strerror}") from error

    def remember(self, metadata: Mapping[str, bytes], artifacts: Collection[str]) -> None:
        """A release is here whole: keep its metadata, and no other release.

        Raises:
            CacheError: it cannot be written.
        """
        if not self.writable:
            return
        try:
            # Before what names them: after a power cut they would be missing, and nothing else is named.
            for artifact in artifacts:
                self._write_down(artifact)
            # The timestamp names the rest, so it comes last: cut off halfway, the release before stands.
            for name in sorted(metadata, key="timestamp.json".__eq__):
                _replace(self._metadata / name, metadata[name])
            for path in self._metadata.iterdir():
                if path.name not in metadata:
                    path.unlink()
            self.prune(artifacts)
        except OSError as error:
            raise CacheError(f"the release cannot be kept: {error.strerror}") from error

    def tries(self, release: str) -> Tries:
        """How often a release was started and has not said since that it is well.

        Args:
            release: its name, from `phase.boot.fallback.name`.
        """
        try:
            text = _read(self._tried, _MAX_NAME).decode("ascii")
        except (OSError, UnicodeDecodeError):
            return Tries()
        name, *numbers = text.strip().rsplit(" ", 2)
        if name != release or not all(
            number.isdecimal() and len(number) <= _MAX_DIGITS for number in numbers
        ):
            return Tries()
        return Tries(*map(int, numbers))

    def note_tries(self, release: str, tries: Tries) -> None:
        """A release is started, or the one before it: count it, on the disk.

        Raises:
            CacheError: it cannot be written.
        """
        try:
            files.write(self._tried, f"{release} {tries.starts} {tries.before}\n".encode(), mode=0o600)
        except OSError as error:
            raise CacheError(f"a start cannot be counted: {error.strerror}") from error

    def note_well(self, release: str) -> None:
        """A release says that it is well: it begins to count anew.

        Raises:
            CacheError: it cannot be written.
        """
        if not self.tries(release).starts:
            return
        try:
            self._tried.unlink(missing_ok=True)
            files.sync_directory(self._directory)
        except OSError as error:
            raise CacheError(f"the starts cannot be forgotten: {error.strerror}") from error

    def prune(self, keep: Collection[str]) -> None:
        """Remove every artifact but these, by their names."""
        for path in self._blobs.iterdir():
            if path.name not in keep:
                path.unlink()

    def _write_down(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):  # there was no room for it
            file = floors.open_plain(self._blobs / name)
            try:
                os.fsync(file)
            finally:
                os.close(file)

    def _free(self) -> int:
        found = os.statvfs(self._blobs)
        return found.f_bavail * found.f_frsize


def _directory(path: Path, *, make: bool) -> None:
    """Refuse what stands in a directory's place: through a link, files elsewhere would be changed."""
    try:
        if make and not os.path.lexists(path):
            path.mkdir()
        if stat.S_ISDIR(path.lstat().st_mode):
            return
        why = "it is not a directory"
    except FileNotFoundError:
        return  # a new cache that is only read
    except OSError as error:
        why = error.strerror or str(error)
    raise CacheError(f"the cache's {path} cannot be used: {why}", hint="Remove it, or make the cache anew.")


def _remove(directory: Path) -> None:
    """Remove a directory of files, if it is one."""
    if directory.is_symlink() or not directory.is_dir():
        return
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()


def _read(path: Path, limit: int) -> bytes:
    """A file's first bytes.

    Raises:
        OSError: there is no such file, or it is not a regular one.
    """
    with open(floors.open_plain(path), "rb") as handle:
        return handle.read(limit)


def _replace(path: Path, data: bytes) -> None:
    """Write a file in one step, if that changes anything: most boots find what the last one kept."""
    try:
        if _read(path, len(data) + 1) == data:
            return
    except OSError:
        pass  # not there, or not ours: the rename takes its place
    files.write(path, data, mode=0o600)


def find(directory: str = _SYS, devices: str = "/dev") -> str | None:
    """The first block device with an ext4 file system of our label.

    Args:
        directory: where the kernel lists block devices.
        devices: where their nodes are.
    """
    try:
        names = sorted(os.listdir(directory))[:_MAX_DEVICES]
    except OSError:
        return None
    for name in names:
        try:
            with open(f"{devices}/{name}", "rb", buffering=0) as handle:
                head = handle.read(_SUPERBLOCK + 1024)
        except OSError:
            continue  # no medium in it, or not ours to read
        if is_ours(head):
            return f"{devices}/{name}"
    return None


def is_ours(head: bytes) -> bool:
    """Whether the first two kilobytes of a device are those of an ext4 file system of our label."""
    if len(head) < _SUPERBLOCK + 1024:
        return False
    (magic,) = struct.unpack_from("<H", head, _SUPERBLOCK + _MAGIC_AT)
    label = head[_SUPERBLOCK + _LABEL_AT :][:_LABEL_BYTES].rstrip(b"\0")
    return magic == _MAGIC and label == LABEL.encode()


def mount(device: str, directory: str, publisher: str, *, writable: bool) -> Cache:
    """Mount the cache's file system.

    Args:
        device: from `find`.
        directory: where to.
        publisher: as of `Cache`.
        writable: if not, the device stays as it is, bit for bit.

    Raises:
        CacheError: the kernel cannot, or what is on it is no cache.
    """
    mounts.load_modules(_MODULES)
    why = ""
    for write in (True, False) if writable else (False,):
        # Without `noload` even a read-only mount replays the journal, which writes.
        options = _WRITING if write else "noload"
        flags = mounts.DATA | mounts.NOATIME | _NOSYMFOLLOW | (0 if write else mounts.RDONLY)
        try:
            mounts.mount(device, directory, "ext4", flags=flags, options=options)
        except OSError as error:
            why = error.strerror or str(error)
        else:
            try:
                return Cache(Path(directory), publisher, writable=write)
            except CacheError:
                unmount(directory)
                raise
    raise CacheError(
        f"the cache on {device} cannot be mounted: {why}",
        hint=f"Make it anew: mkfs.ext4 -L {LABEL} {device}",
    )


def unmount(directory: str) -> None:
    """Write everything out; harmless where nothing is mounted."""
    os.sync()
    ctypes.CDLL(None).umount2(directory.encode(), 0)


def blocks(file: int, length: int) -> Iterator[tuple[int, bytes]]:
    """A file's content from its start: offset and bytes, a megabyte at a time.

    Args:
        file: its descriptor.
        length: bytes to read at most; a file that holds less, or cannot be read, ends earlier.
    """
    offset = 0
    while offset < length:
        try:
            data = os.pread(file, min(_COPY, length - offset), offset)
        except OSError:
            return
        if not data:
            return
        yield offset, data
        offset += len(data)
