"""An empty ext4 file system inside of an image, by mke2fs."""

import uuid
from pathlib import Path

from boot.run import run

#: What mke2fs of Debian 12 makes by itself; said here, so that no other version and no mke2fs.conf decides.
_FEATURES = (
    "has_journal", "ext_attr", "dir_index", "filetype", "extent", "64bit", "flex_bg", "sparse_super",
    "large_file", "huge_file", "dir_nlink", "extra_isize", "metadata_csum",
)  # fmt: skip
#: 1980, as of all files on a medium. It has no other way to be told before version 1.47.1.
_ENVIRONMENT = {"MKE2FS_CONFIG": "/dev/null", "E2FSPROGS_FAKE_TIME": "315532800"}
_BLOCK = 4096


def write(image: Path, *, offset: int, length: int, label: str, identity: uuid.UUID) -> None:
    """Make a file system in an image.

    Args:
        image: a file, long enough, zero there.
        offset: bytes before the file system.
        length: bytes of it.
        label: its label.
        identity: its UUID.
    """
    extended = f"offset={offset},hash_seed={identity},root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1"
    features = f"none,{','.join(_FEATURES)}"
    options = ["-b", str(_BLOCK), "-I", "256", "-m", "0", "-O", features, "-E", extended]
    naming = ["-L", label, "-U", str(identity)]
    size = str(length // _BLOCK)
    run(["mke2fs", "-q", "-F", "-t", "ext4", *options, *naming, image, size], env=_ENVIRONMENT)
