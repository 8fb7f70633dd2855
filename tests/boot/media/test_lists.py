"""The lists beside a medium."""

import hashlib
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from spdx_tools.spdx.model import RelationshipType
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from boot import tree
from boot.media import spdx, sums
from boot.media.spdx import Package

FILES = {"EFI/BOOT/BOOTX64.EFI": b"x" * 3000, "loader/loader.conf": b"timeout 3\n"}
PACKAGES = [
    Package("deb", "libstdc++6", "12.2.0-14+deb12u1", "amd64", "0" * 64),
    Package("deb", "busybox-static", "1:1.35.0-4+b1", "arm64", "1" * 64),
    Package("wheel", "tuf", "7.0.1"),
]


def test_spdx_tools_find_nothing_wrong(tmp_path: Path) -> None:
    """The reference implementation reads it, and misses nothing that the specification wants."""
    (tmp_path / "medium").write_bytes(b"medium")
    text = spdx.document(tmp_path / "medium", "stick.img", FILES, PACKAGES, 1_790_000_000)
    place = tmp_path / "stick.img.spdx.json"
    place.write_bytes(text)
    document = parse_file(str(place))
    assert [each.validation_message for each in validate_full_spdx_document(document)] == []
    medium, *made_of = document.packages
    assert medium.checksums[0].value == hashlib.sha256(b"medium").hexdigest()
    assert {each.name for each in document.files} == {f"./{name}" for name in FILES}
    sums = sorted(hashlib.sha1(bytes(content)).hexdigest() for content in FILES.values())  # noqa: S324
    assert medium.verification_code is not None
    assert medium.verification_code.value == hashlib.sha1("".join(sums).encode()).hexdigest()  # noqa: S324
    assert {each.external_references[0].locator for each in made_of} == {
        "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64&distro=bookworm",
        "pkg:deb/debian/busybox-static@1:1.35.0-4%2Bb1?arch=arm64&distro=bookworm",
        "pkg:pypi/tuf@7.0.1",
    }
    kinds = [each.relationship_type for each in document.relationships]
    assert kinds.count(RelationshipType.CONTAINS) == 2
    assert kinds.count(RelationshipType.GENERATED_FROM) == 3
    assert str(document.creation_info.created) == "2026-09-21 14:13:20"
    again = spdx.document(tmp_path / "medium", "stick.img", FILES, [*PACKAGES, PACKAGES[0]], 1_790_000_000)
    assert again == text, "a package counts once"


def test_a_seeds_packages_are_those_of_its_own_list(tmp_path: Path) -> None:
    """The tree that it is made from has more, for systems."""
    listed = [
        {"kind": "deb", "name": "busybox-static", "version": "1", "sha256": "a"},
        {"kind": "deb", "name": "ca-certificates", "version": "2", "sha256": "b"},
        {"kind": "deb", "name": "linux-image-6.1.0-50-cloud-arm64", "version": "3", "sha256": "c"},
        {"kind": "wheel", "name": "tuf", "version": "4"},
        {"kind": "wheel", "name": "aiohttp", "version": "5"},
    ]
    (tmp_path / "contents.json").write_text(json.dumps({"packages": listed}))
    assert list(spdx.of_seed("arm64", tmp_path / "contents.json")) == [
        Package("deb", "busybox-static", "1", "arm64", "a"),
        Package("deb", "linux-image-6.1.0-50-cloud-arm64", "3", "arm64", "c"),
        Package("wheel", "tuf", "4"),
    ]
    assert "ca-certificates" in tree.packages()["debian"]["system"]


def test_sha256sum_checks_the_list(tmp_path: Path) -> None:
    for name in ("b.img", "a b.iso"):
        (tmp_path / name).write_bytes(name.encode())
        sums.write(tmp_path, [tmp_path / name])
    (tmp_path / "b.img").write_bytes(b"newer")
    place = sums.write(tmp_path, [tmp_path / "b.img"])
    assert [line[66:] for line in place.read_text().splitlines()] == ["a b.iso", "b.img"]
    check = ["sha256sum", "--check", "--strict", sums.NAME]
    subprocess.run(check, cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "b.img").write_bytes(b"other")
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run(check, cwd=tmp_path, check=True, capture_output=True)


def test_builds_that_end_at_once_lose_no_line(tmp_path: Path) -> None:
    names = [f"{number}.img" for number in range(40)]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: sums.write(tmp_path, [tmp_path / name]), names))
    assert len((tmp_path / sums.NAME).read_text().splitlines()) == len(names)
