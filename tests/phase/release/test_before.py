"""A manifest that names the release before it."""

from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata, Targets

from phase.release import cut
from phase.release.errors import ManifestError, RepositoryError
from phase.release.manifest import Manifest
from phase.release.repository import Repository

ROLE = "stable-x86_64"
Artifacts = dict[str, Path]


def second(repository: Repository, artifacts: Artifacts) -> Targets:
    """Publish a release that may be left for the one before; its signed role."""
    artifacts["kernel"].write_bytes(b"another kernel")
    repository.add("stable", "x86_64", artifacts, cmdline="second", release="2.0.0", fall_back=True)
    repository.publish()
    path = repository.directory / f"metadata/2.{ROLE}.json"
    return Metadata[Targets].from_bytes(path.read_bytes()).signed


def test_it_is_the_release_that_was_published(repository: Repository, artifacts: Artifacts) -> None:
    old = repository.manifest("stable", "x86_64")
    found = Manifest.from_role(ROLE, second(repository, artifacts))
    assert found.before == old._replace(version=2, expires=found.expires)
    assert found.contents == {
        artifact.content for each in (found, old) for artifact in each.artifacts.values()
    }


def test_it_is_named_only_if_asked_for(repository: Repository, artifacts: Artifacts) -> None:
    repository.add("stable", "x86_64", artifacts, release="2.0.0")
    repository.publish()
    assert repository.manifest("stable", "x86_64").before is None


def test_the_first_release_has_none(repository: Repository, artifacts: Artifacts) -> None:
    with pytest.raises(RepositoryError, match="no release of beta-x86_64 to fall back to"):
        repository.add("beta", "x86_64", artifacts, release="1.0.0", fall_back=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "it is not described"),
        ({"artifacts": []}, "it is not described"),
        ({"artifacts": {}}, "without a kernel"),
        ({"artifacts": {f"x{n}": {} for n in range(65)}}, "it is not described"),
        ({"artifacts": {"../kernel": {}}}, "'../kernel' is not an artifact"),
        ({"artifacts": {"kernel": 1}}, "'kernel' is not an artifact"),
        ({"artifacts": {"kernel": {}}}, "kernel has an absurd length, None"),
        ({"artifacts": {"kernel": {"length": True}}}, "kernel has an absurd length"),
        (
            {"artifacts": {"kernel": {"length": 1, "sha256": "x", "cut": ""}}},
            "malformed SHA-256|its chunks 0",
        ),
        (
            {"artifacts": {"kernel": {"length": 1, "sha256": 1, "cut": cut.write([(1, bytes(32))])}}},
            "kernel has a malformed SHA-256",
        ),
        ({"release": 1}, "not a release version"),
        ({"cmdline": "a\nb"}, "not a kernel command line"),
    ],
)
def test_what_describes_none_is_refused(
    repository: Repository, artifacts: Artifacts, change: dict[str, Any] | None, message: str
) -> None:
    signed = second(repository, artifacts)
    facts = signed.unrecognized_fields["x-phase"]
    facts["before"] = None if change is None else facts["before"] | change
    with pytest.raises(ManifestError, match=message):
        Manifest.from_role(ROLE, signed)


def test_one_hash_is_one_content_there_too(repository: Repository, artifacts: Artifacts) -> None:
    signed = second(repository, artifacts)
    before = signed.unrecognized_fields["x-phase"]["before"]["artifacts"]
    before["initramfs"] |= {"length": 10, "cut": cut.write([(10, bytes(32))])}
    with pytest.raises(ManifestError, match="have one SHA-256, but other lengths or chunks"):
        Manifest.from_role(ROLE, signed)
