"""Write cpio archives in the "newc" format the kernel unpacks as an initramfs.

Source: Linux Documentation/driver-api/early-userspace/buffer-format.rst. The writer exists because
archivers on the host either need root for device nodes or keep the host's inode numbers and times.
"""

import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

_TRAILER = "TRAILER!!!"


class Node(NamedTuple):
    """One entry of an archive."""

    path: str
    mode: int
    data: bytes | Path = b""
    #: Device number of a character or block special file.
    device: tuple[int, int] = (0, 0)


def directory(path: str, mode: int = 0o755) -> Node:
    """A directory."""
    return Node(path, stat.S_IFDIR | mode)


def regular(path: str, data: bytes | Path, mode: int = 0o644) -> Node:
    """A file, with its bytes or the host file they come from."""
    return Node(path, stat.S_IFREG | mode, data)


def symlink(path: str, target: str) -> Node:
    """A symbolic link."""
    return Node(path, stat.S_IFLNK | 0o777, target.encode())


def character(path: str, major: int, minor: int, mode: int = 0o600) -> Node:
    """A character device."""
    return Node(path, stat.S_IFCHR | mode, device=(major, minor))


def tree(root: Path, *, under: str = "") -> list[Node]:
    """Every entry below a host directory, in a stable order, owner and times dropped."""
    nodes = []
    for path in sorted(root.rglob("*")):
        name = f"{under}{path.relative_to(root).as_posix()}"
        if path.is_symlink():
            nodes.append(symlink(name, str(path.readlink())))
        elif path.is_dir():
            nodes.append(directory(name))
        else:
            nodes.append(regular(name, path, 0o755 if path.stat().st_mode & 0o100 else 0o644))
    return nodes


def header(path: str, mode: int, size: int, *, inode: int, device: tuple[int, int] = (0, 0)) -> bytes:
    """The header of one entry: fixed owner 0:0, time 0, padded to four bytes.

    Args:
        path: name in the archive, no leading slash.
        mode: type and permissions.
        size: bytes of content; at most 4 GiB - 1, the format's limit.
        inode: any number unique in the archive.
        device: major and minor of a special file.
    """
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (inode, mode, 0, 0, links, 0, size, 0, 0, device[0], device[1], len(name), 0)
    raw = b"070701" + b"".join(b"%08x" % field for field in fields) + name
    return raw + bytes(-len(raw) % 4)


def write(out: BinaryIO, nodes: Iterable[Node]) -> None:
    """Write a whole archive, parents first, ending padded to 512 bytes.

    Args:
        out: where to.
        nodes: the entries; missing parent directories are added.
    """
    made: set[str] = set()
    inode = 0
    written = 0

    def put(node: Node) -> None:
        nonlocal inode, written
        inode += 1
        data = node.data.read_bytes() if isinstance(node.data, Path) else node.data
        raw = header(node.path, node.mode, len(data), inode=inode, device=node.device)
        out.write(raw)
        out.write(data)
        out.write(bytes(-len(data) % 4))
        written += len(raw) + len(data) + (-len(data) % 4)

    for node in nodes:
        parts = node.path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            parent = "/".join(parts[:depth])
            if parent not in made:
                made.add(parent)
                put(directory(parent))
        if stat.S_ISDIR(node.mode):
            if node.path in made:
                continue
            made.add(node.path)
        put(node)
    end = header(_TRAILER, 0, 0, inode=0)
    out.write(end)
    out.write(bytes(-(written + len(end)) % 512))
