"""Finds the architecture of the first program in an initramfs.

Source: Linux Documentation/driver-api/early-userspace/buffer-format.rst. An archive may follow another, with
zeros between; only the last one is compressed.
"""

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable, Collection
from typing import BinaryIO, Protocol

_COMPRESSIONS = ((b"\x1f\x8b", "gzip"), (b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2"), (b"\x5d\0\0", "lzma"))
_DAMAGED = (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError)
#: Limit for the memory of an xz stream, bytes.
_XZ_MEMORY = 128 << 20
#: Limit for the bytes of an archive that are read.
_MAX_BYTES = 64 << 20
_MAX_ARCHIVES = 8
_BLOCK = 1 << 18
_MAGIC = (b"070701", b"070702")
_HEADER = 110
_REGULAR, _KIND = 0o100000, 0o170000


class _Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


def compression(head: bytes) -> str:
    """The compression of a file, by its first bytes; empty if it has none that can be undone here."""
    return next((name for magic, name in _COMPRESSIONS if head.startswith(magic)), "")


def unpacked(name: str, data: bytes, size: int) -> bytes:
    """The first bytes of a compressed file's content; empty if it is damaged.

    Args:
        name: of the compression.
        data: the beginning of the file.
        size: how many bytes are wanted.
    """
    try:
        return _unpacker(name)(data, size)
    except _DAMAGED:
        return b""


def archived_machine(file: BinaryIO, machines: Collection[int]) -> int:
    """The machine of the first program in an archive, as ELF numbers it; 0 if it is not known.

    Args:
        file: an initramfs; at most 64 MiB of it are read.
        machines: the machines to look for. Firmware of cards is ELF, too.

    Raises:
        OSError: it cannot be read.
    """
    offset = 0
    for _ in range(_MAX_ARCHIVES):
        file.seek(offset)
        head = file.read(6)
        file.seek(offset)
        if head in _MAGIC:
            walk = _Walk(file)
            if machine := walk.machine(machines):
                return machine
            offset = _after_zeros(file, offset + walk.position)
        elif name := compression(head):
            try:
                return _Walk(_Unpacked(file, name)).machine(machines)
            except _DAMAGED:
                return 0
        else:
            break
    return 0


def _after_zeros(file: BinaryIO, offset: int) -> int:
    file.seek(offset)
    block = file.read(_BLOCK)
    return offset + len(block) - len(block.lstrip(b"\0"))


class _Gzip:
    """Has the interface of the decompressors of bz2 and lzma: it keeps output for later calls."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(31)

    def decompress(self, data: bytes, size: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, size)


def _unpacker(name: str) -> Callable[[bytes, int], bytes]:
    """Unpacks a stream: takes its next bytes, and a limit for the output."""
    if name == "gzip":
        return _Gzip().decompress
    if name == "bzip2":
        return bz2.BZ2Decompressor().decompress
    return lzma.LZMADecompressor(lzma.FORMAT_AUTO, _XZ_MEMORY).decompress


class _Unpacked:
    """Reads the content of a compressed file.

    Args:
        file: open, at the start of the compressed data.
        name: of the compression.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._unpack = _unpacker(name)
        self._ready = b""

    def read(self, size: int) -> bytes:
        """Read so many bytes; fewer at the end."""
        while len(self._ready) < size:
            made = self._unpack(b"", _BLOCK)
            if not made:
                block = self._file.read(_BLOCK)
                if not block:
                    break
                made = self._unpack(block, _BLOCK)
            self._ready += made
        taken, self._ready = self._ready[:size], self._ready[size:]
        return taken


class _Walk:
    """Goes through an archive.

    Args:
        source: at the start of the archive.
    """

    def __init__(self, source: _Source) -> None:
        self._source = source
        #: Bytes gone through.
        self.position = 0

    def machine(self, machines: Collection[int]) -> int:
        """The machine of the first program for one of them; 0 without such a program."""
        while self.position < _MAX_BYTES:
            header = self._take(_HEADER)
            if len(header) < _HEADER or header[:6] not in _MAGIC:
                return 0
            try:
                fields = struct.unpack(">13I", bytes.fromhex(header[6:].decode("ascii")))
            except (ValueError, struct.error):
                return 0
            mode, size, name_size = fields[1], fields[6], fields[11]
            name = self._take(name_size).rstrip(b"\0")
            self._align()
            if name == b"TRAILER!!!":
                return 0
            begin = self._take(min(size, 20))
            if mode & _KIND == _REGULAR and begin[:4] == b"\x7fELF" and b"firmware/" not in name:
                machine = int.from_bytes(begin[18:20], "little")
                if machine in machines:
                    return machine
            self._skip(size - len(begin))
            self._align()
        return 0

    def _take(self, size: int) -> bytes:
        data = self._source.read(min(size, _BLOCK))
        self.position += len(data)
        return data

    def _skip(self, size: int) -> None:
        while size > 0 and self.position < _MAX_BYTES:
            gone = len(self._take(size))
            if not gone:
                return
            size -= gone

    def _align(self) -> None:
        self._take(-self.position % 4)
