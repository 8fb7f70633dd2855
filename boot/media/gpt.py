"""A GUID partition table in an image, by sfdisk.

Source: UEFI 2.10, chapter 5, "GUID Partition Table (GPT) Disk Layout".
"""

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from boot.run import run

SECTOR = 512
#: Partitions begin at multiples of it; so much is before the first and behind the last one.
ALIGNMENT = 1 << 20
#: Types of partitions: an EFI system partition, and what Linux keeps.
ESP = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
_NAMESPACE = uuid.UUID("6f1b1c9e-6f0a-5c0d-9d8e-2f6a4b1d7c35")


class Partition(NamedTuple):
    """A partition.

    Attributes:
        name: for people.
        kind: GUID of its type.
        length: bytes, a multiple of `ALIGNMENT`.
    """

    name: str
    kind: str
    length: int


def write(image: Path, partitions: Sequence[Partition], *, identity: str) -> list[int]:
    """Make an image of zeros with a partition table.

    Args:
        image: the file; it is made, or replaced.
        partitions: in order.
        identity: text that the GUIDs of the disk and its partitions are made from.

    Returns:
        Where each partition starts, bytes.
    """
    starts = [ALIGNMENT + sum(each.length for each in partitions[:n]) for n in range(len(partitions))]
    image.unlink(missing_ok=True)
    with image.open("xb") as made:
        made.truncate(2 * ALIGNMENT + sum(each.length for each in partitions))
    lines = ["label: gpt", "unit: sectors", f"label-id: {guid(identity, '')}"]
    for start, each in zip(starts, partitions, strict=True):
        lines.append(
            f"start={start // SECTOR}, size={each.length // SECTOR}, type={each.kind}, "
            f'uuid={guid(identity, each.name)}, name="{each.name}"'
        )
    run(
        ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "--wipe", "never", image],
        stdin="\n".join(lines) + "\n",
    )
    return starts


def guid(identity: str, name: str) -> uuid.UUID:
    """A GUID that is the same for the same words.

    Args:
        identity: of the medium.
        name: of a part of it; empty for the whole.
    """
    return uuid.uuid5(_NAMESPACE, f"{identity}/{name}")
