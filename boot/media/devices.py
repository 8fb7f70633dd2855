"""What this machine's kernel says of a block device, and why one must not be written to."""

import json
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from boot.errors import BuildError
from boot.run import run

#: What lsblk is asked for.
COLUMNS = "NAME,PATH,TYPE,SIZE,RO,FSTYPE,LABEL,MOUNTPOINTS,MODEL,TRAN,SERIAL"


class Part(NamedTuple):
    """Something on a device: a partition, a volume.

    Attributes:
        name: the kernel's.
        kind: `part`, `crypt`, `lvm` …
        size: bytes.
        content: file system and label, as far as they are known.
        mounts: where it is mounted; `[SWAP]` for swap space.
    """

    name: str
    kind: str
    size: int
    content: str
    mounts: tuple[str, ...]


class Device(NamedTuple):
    """A whole block device.

    Attributes:
        path: its node.
        kind: `disk`, `loop`, `rom` …
        size: bytes.
        what: model, bus and serial number, for people.
        read_only: whether it takes nothing.
        parts: itself first, then all that is on it.
    """

    path: Path
    kind: str
    size: int
    what: str
    read_only: bool
    parts: tuple[Part, ...]


def look(path: Path) -> Device:
    """Ask lsblk about a device.

    Args:
        path: of its node.

    Raises:
        BuildError: it is not a block device, or lsblk does not know it.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise BuildError(f"{path}: {error.strerror}") from error
    if not stat.S_ISBLK(mode):
        raise BuildError(f"{path} is not a block device", hint="`lsblk` lists those of this machine.")
    return read(run(["lsblk", "--json", "--bytes", "--output", COLUMNS, path.resolve()]), path)


def read(text: str, path: Path) -> Device:
    """A device from what lsblk prints.

    Args:
        text: JSON, with the columns that `look` asks for.
        path: of the device.

    Raises:
        BuildError: it is not about one device.
    """
    try:
        (entry,) = json.loads(text)["blockdevices"]
        parts = tuple(_parts(entry))
        what = " ".join(str(entry[key]).strip() for key in ("model", "tran", "serial") if entry[key])
        return Device(
            path, entry["type"], int(entry["size"]), what or "unknown model", bool(entry["ro"]), parts
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BuildError(f"lsblk says nothing useful of {path}: {error!r}") from error


def _parts(entry: Mapping[str, Any]) -> Iterator[Part]:
    content = " ".join(str(entry[key]) for key in ("fstype", "label") if entry[key])
    mounts = tuple(place for place in entry["mountpoints"] if place)
    yield Part(entry["name"], entry["type"], int(entry["size"]), content, mounts)
    for child in entry.get("children", ()):
        yield from _parts(child)


def refusal(device: Device, needed: int) -> str:
    """Why a device must not be written to; empty if it may be.

    Args:
        device: from `look`.
        needed: bytes that are to be written.
    """
    mounted = [(part, place) for part in device.parts for place in part.mounts]
    if device.kind == "part":
        return f"{device.path} is a partition; a medium takes a whole device"
    if device.kind != "disk":
        return f"{device.path} is not a disk (lsblk calls it {device.kind})"
    if any(place == "/" for _, place in mounted):
        return f"this system runs from {device.path}"
    if mounted:
        part, place = mounted[0]
        return f"{part.name} on {device.path} is in use, at {place}; unmount it first"
    if held := [part for part in device.parts[1:] if part.kind != "part"]:
        return f"{device.path} is in use by {held[0].name} ({held[0].kind}); close that first"
    if device.read_only:
        return f"{device.path} is read-only; does it have a switch?"
    if device.size < needed:
        return f"{device.path} has {device.size} bytes, and {needed} are needed"
    return ""


def lines(device: Device) -> Sequence[str]:
    """What would be erased, for people."""
    found = [f"{device.path}: {device.what}, {_size(device.size)}"]
    for part in device.parts:
        if part.kind == "part" or part.content:
            found.append(f"  {part.name}: {_size(part.size)}, {part.content or 'content unknown'}")
    return found if len(found) > 1 else [*found, "  nothing that this system knows"]


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
