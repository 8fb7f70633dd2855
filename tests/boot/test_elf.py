"""Shared libraries without what only a debugger reads."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from nacl import _sodium

from boot import elf, stage
from boot.errors import BuildError

LIBRARY = Path(_sodium.__file__)


def test_what_is_left_is_what_a_loader_maps() -> None:
    whole = LIBRARY.read_bytes()
    kept = elf.loaded(whole, "library")
    assert len(kept) < len(whole)
    before, after = ELFFile(io.BytesIO(whole)), ELFFile(io.BytesIO(kept))
    assert after.num_sections() == 0
    assert before.num_segments() == after.num_segments() > 3
    for one, other in zip(before.iter_segments(), after.iter_segments(), strict=True):
        assert one.header == other.header
        start, end = one["p_offset"], one["p_offset"] + one["p_filesz"]
        # All but the header itself, which no longer names sections.
        assert whole[max(start, 64) : end] == kept[max(start, 64) : end]
    assert elf.loaded(kept, "library") == kept, "what has nothing more is left alone"


def test_a_library_still_works(tmp_path: Path) -> None:
    stage.copy_file(LIBRARY, tmp_path / "nacl" / LIBRARY.name)
    assert (tmp_path / "nacl" / LIBRARY.name).stat().st_size < LIBRARY.stat().st_size
    program = (
        f"import sys, nacl; nacl.__path__.insert(0, {str(tmp_path / 'nacl')!r}); import nacl._sodium as it; "
        "from nacl.bindings import crypto_hash_sha256 as sha; print(it.__file__, sha(b'abc').hex()[:8])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(tmp_path / "nacl" / LIBRARY.name), "ba7816bf"]


def test_other_files_are_copied_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("nothing of an ELF file")
    stage.copy_file(tmp_path / "one.py", tmp_path / "there" / "one.py")
    assert (tmp_path / "there" / "one.py").read_text() == "nothing of an ELF file"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GROUP ( libc.so.6 )", r"libx\.so is not an ELF file"),
        (LIBRARY.read_bytes()[:200_000], r"libx\.so is not an ELF file: .*past EOF"),
        (
            elf.loaded(LIBRARY.read_bytes(), "")[:200_000],
            "has 200000 bytes, and its segments end at",
        ),
    ],
    ids=["text", "cut", "cut without sections"],
)
def test_what_is_not_a_whole_library(data: bytes, why: str) -> None:
    with pytest.raises(BuildError, match=why):
        elf.loaded(data, "libx.so")


def test_a_library_of_another_kind_of_machine() -> None:
    narrow = bytearray(LIBRARY.read_bytes())
    narrow[4] = 1  # EI_CLASS: 32-bit
    with pytest.raises(BuildError, match=r"libx\.so is not a 64-bit, little-endian ELF file"):
        elf.loaded(bytes(narrow), "libx.so")
