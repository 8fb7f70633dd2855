"""A signed manifest is still read with care."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuf.api.metadata import TargetFile, Targets

from phase.release import manifest
from phase.release.errors import ManifestError
from phase.release.manifest import Manifest

HASH = "ab" * 32
FACTS = {"channel": "stable", "arch": "x86_64", "release": "1.0", "cmdline": "quiet"}
CHUNKS = {"chunk_size": 1 << 20, "chunks": [HASH, HASH]}


def role(
    facts: object = FACTS,
    phase: object = CHUNKS,
    *,
    length: int = (1 << 20) + 1,
    path: str = "stable/x86_64/kernel",
    hashes: dict[str, str] | None = None,
) -> Targets:
    target = TargetFile(length, hashes or {"sha256": HASH}, path, {"custom": {"phase": phase}})
    found = Targets(targets={path: target}, expires=datetime(2030, 1, 1, tzinfo=UTC))
    found.unrecognized_fields["x-phase"] = facts
    return found


def test_a_role_is_read() -> None:
    found = Manifest.from_role("stable-x86_64", role())
    assert found.artifacts["kernel"] == (
        "kernel",
        (1 << 20) + 1,
        HASH,
        (0, 1 << 20, (1 << 20) + 1),
        (HASH, HASH),
        "stable/x86_64/kernel",
    )
    assert (found.channel, found.arch, found.release, found.cmdline) == ("stable", "x86_64", "1.0", "quiet")


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (role(None), "field 'x-phase' is missing"),
        (role(FACTS | {"channel": "beta"}), "channel 'beta', expected 'stable'"),
        (role(FACTS | {"arch": "arm64"}), "arch 'arm64', expected 'x86_64'"),
        (role(FACTS | {"release": 1}), "not a release version"),
        (role(FACTS | {"cmdline": "a\x1b[2J"}), "not a kernel command line"),
        (role(FACTS | {"cmdline": None}), "not a kernel command line"),
        (role(path="stable/x86_64/initramfs"), "without a kernel"),
        (role(path="stable/arm64/kernel"), "not an artifact below"),
        (role(path="stable/x86_64/../kernel"), "not an artifact below"),
        (role(path="stable/x86_64/.kernel"), "not an artifact below"),
        (role(phase=None), "no chunk list"),
        (role(phase=CHUNKS | {"chunks": [HASH]}), "needs 2 chunk hashes, found 1"),
        (role(phase=CHUNKS | {"chunks": "abcd"}), "needs 2 chunk hashes"),
        (role(phase=CHUNKS | {"chunks": [HASH, HASH.upper()]}), "malformed SHA-256"),
        (role(phase=CHUNKS | {"chunks": [HASH, 1]}), "malformed SHA-256"),
        (role(phase=CHUNKS | {"chunk_size": 1000}), "chunks of 1000 bytes"),
        (role(phase=CHUNKS | {"chunk_size": True}), "chunks of True bytes"),
        (role(phase=CHUNKS | {"chunk_size": (1 << 20) + 1}), "chunks of 1048577 bytes"),
        (role(length=0), "absurd length"),
        (role(length=1 << 60), "absurd length"),
        (role(hashes={"sha512": HASH}), "malformed SHA-256, None"),
    ],
)
def test_an_absurd_one_is_refused_and_why(targets: Targets, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        Manifest.from_role("stable-x86_64", targets)


def test_artifacts_are_bounded() -> None:
    found = role()
    kernel = found.targets["stable/x86_64/kernel"]
    found.targets |= {f"stable/x86_64/dtb-{n}": kernel for n in range(64)}
    with pytest.raises(ManifestError, match="65 artifacts"):
        Manifest.from_role("stable-x86_64", found)


@pytest.mark.parametrize(
    ("length", "chunks"), [((1 << 20) + 2, CHUNKS), ((1 << 20) + 1, CHUNKS | {"chunks": [HASH, "0" * 64]})]
)
def test_one_hash_is_one_content(length: int, chunks: dict[str, Any]) -> None:
    """Both are written to one place in the next kernel's initrd: a longer one would reach into the next."""
    found = role()
    found.targets |= role(path="stable/x86_64/dtb-same").targets
    assert set(Manifest.from_role("stable-x86_64", found).artifacts) == {"kernel", "dtb-same"}
    found.targets |= role(path="stable/x86_64/dtb-other", length=length, phase=chunks).targets
    with pytest.raises(ManifestError, match="kernel and dtb-other have one SHA-256, but other lengths or"):
        Manifest.from_role("stable-x86_64", found)


@given(st.text(max_size=80), st.sampled_from(["x86_64", "arm64"]))
def test_a_role_name_and_back(channel: str, arch: str) -> None:
    try:
        name = manifest.role_name(channel, arch)
    except ManifestError:
        return
    assert manifest.split_role(name) == (channel, arch)
    assert "/" not in name
    assert name.isascii()


@given(st.text(max_size=40))
def test_no_other_text_is_a_role_name(text: str) -> None:
    if text.endswith(("-x86_64", "-arm64")):
        return
    with pytest.raises(ManifestError):
        manifest.split_role(text)


@given(
    st.dictionaries(
        st.sampled_from(sorted(FACTS)), st.none() | st.integers() | st.text() | st.lists(st.text())
    )
)
def test_any_facts(changed: dict[str, Any]) -> None:
    try:
        found = Manifest.from_role("stable-x86_64", role(FACTS | changed))
    except ManifestError:
        return
    assert found.cmdline.isascii()
