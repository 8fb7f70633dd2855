"""Chunks that are cut by content: what changes moves only what is near, and old readers read on."""

import random
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuf.api.metadata import Metadata, Targets

from phase.release import blobs, cut
from phase.release.errors import ManifestError
from phase.release.manifest import Manifest, role_name
from phase.release.repository import Repository
from tests.phase.release import format1

LENGTH = 4 << 20
DATA = random.Random(4).randbytes(LENGTH)  # noqa: S311


def chunks(tmp_path: Path, data: bytes) -> dict[str, int]:
    """Hash to length."""
    path = tmp_path / "file"
    path.write_bytes(data)
    starts, hashes = cut.read(blobs.hash_artifact(path).cut, len(data))
    return {name: end - start for name, (start, end) in zip(hashes, pairwise(starts), strict=True)}


def published(repository: Repository) -> Targets:
    """The signed role of a release, as it is on the disk."""
    path = repository.directory / f"metadata/1.{role_name('stable', 'x86_64')}.json"
    return Metadata[Targets].from_bytes(path.read_bytes()).signed


def test_what_is_put_in_moves_only_the_chunks_near_it(tmp_path: Path) -> None:
    before = chunks(tmp_path, DATA)
    after = chunks(tmp_path, DATA[:1_000_000] + b"one more word" + DATA[1_000_000:])
    new = sum(length for name, length in after.items() if name not in before)
    assert 13 < new < 4 << 16
    assert 30 < len(after) < 90


@given(st.lists(st.tuples(st.integers(cut.SHORTEST, cut.LONGEST), st.binary(min_size=32, max_size=32))))
def test_a_list_is_read_as_it_was_written(listed: list[tuple[int, bytes]]) -> None:
    starts, hashes = cut.read(cut.write(listed), sum(length for length, _ in listed))
    assert [end - start for start, end in pairwise(starts)] == [length for length, _ in listed]
    assert hashes == tuple(digest.hex() for _, digest in listed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "damaged list"),
        ([1], "damaged list"),
        ("A" * 47, "damaged list"),
        ("*" * 48, "damaged list"),
        ("A" * 46 + "==", "damaged list"),
        ("é" * 48, "damaged list"),
        ("A" * 48 * (cut.MAX_CHUNKS + 1), "65537 chunks; the limit is 65536"),
        ("", "100000 bytes, and its chunks 0"),
        (cut.write([(99_999, bytes(32))]), "a chunk of 99999|its chunks 99999"),
        (cut.write([(100_000, bytes(32)), (1, bytes(32))]), "its chunks 100001"),
        (cut.write([(16_383, bytes(32)), (83_617, bytes(32))]), "a chunk of 16383 bytes"),
        (cut.write([(100_000, bytes(32)), (0, bytes(32))]), "a chunk of 0 bytes"),
        (cut.write([(cut.LONGEST + 1, bytes(32))]), "a chunk of 16777217 bytes"),
    ],
)
def test_what_is_no_list_is_refused(text: object, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        cut.read(text, 100_000)


def test_a_last_chunk_may_be_short() -> None:
    starts, _ = cut.read(cut.write([(99_999, bytes(32)), (1, bytes(32))]), 100_000)
    assert starts == (0, 99_999, 100_000)


@pytest.mark.parametrize(("length", "average"), [(1, 1 << 16), (1 << 28, 1 << 18), (2 << 30, 1 << 20)])
def test_longer_files_get_longer_chunks(length: int, average: int) -> None:
    cutter = cut.cutter(length)
    assert (cutter.avg_size, cutter.min_size, cutter.max_size) == (average, average // 4, average * 4)
    assert cutter.min_size >= cut.SHORTEST
    assert cutter.max_size <= cut.LONGEST


def test_a_reader_of_format_1_boots_a_release_of_format_2(repository: Repository) -> None:
    """What the seeds do that were built before there was a second format."""
    role = role_name("stable", "x86_64")
    signed = published(repository)
    new = Manifest.from_role(role, signed)
    for name, old in format1.read(role, signed).items():
        data = (repository.directory / blobs.PLACE / old.sha256).read_bytes()
        parts = [data[at : at + old.chunk_size] for at in range(0, len(data), old.chunk_size)]
        assert old.chunks == tuple(sha256(part).hexdigest() for part in parts)
        assert (old.length, old.sha256) == new.artifacts[name][1:3]
    assert signed.unrecognized_fields["x-phase"]["format"] == 2


def test_a_release_of_format_1_is_read_as_before(repository: Repository) -> None:
    role = role_name("stable", "x86_64")
    signed = published(repository)
    del signed.unrecognized_fields["x-phase"]["format"]
    old = format1.read(role, signed)
    for name, found in Manifest.from_role(role, signed).artifacts.items():
        assert found.chunks == old[name].chunks
        assert found.starts[1] == min(old[name].chunk_size, found.length)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (3, "format 3; formats up to 2"),
        (0, "malformed format, 0"),
        ("2", "malformed format"),
        (True, "malformed format"),
    ],
)
def test_other_formats_are_refused(repository: Repository, version: Any, message: str) -> None:
    role = role_name("stable", "x86_64")
    signed = published(repository)
    signed.unrecognized_fields["x-phase"]["format"] = version
    with pytest.raises(ManifestError, match=message):
        Manifest.from_role(role, signed)


def test_what_a_cache_has_of_a_release_of_format_1_keeps_its_name(repository: Repository) -> None:
    role = role_name("stable", "x86_64")
    signed = published(repository)
    new = Manifest.from_role(role, signed).artifacts
    del signed.unrecognized_fields["x-phase"]["format"]
    old = format1.read(role, signed)
    for name, found in Manifest.from_role(role, signed).artifacts.items():
        was = f"{old[name].length} {old[name].chunk_size} {' '.join(old[name].chunks)}"
        assert found.content == sha256(was.encode()).hexdigest()
        assert (found.content == new[name].content) is (found.chunks == new[name].chunks)
