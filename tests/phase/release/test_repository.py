"""A repository on disk: static, complete, and old or new at any moment."""

import errno
import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from phase import files, trust
from phase.release import blobs, cut, staging
from phase.release.errors import KeysError, ManifestError, RepositoryError
from phase.release.keys import ReleaseKeys
from phase.release.manifest import CHUNK_SIZE
from phase.release.repository import Repository

Artifacts = dict[str, Path]


def refresh(directory: Path, now: datetime, *, arch: str = "x86_64", **more: Any) -> trust.Refreshed:
    """What a client makes of the files as they are there."""

    def get(name: str, max_bytes: int) -> bytes:
        try:
            with (directory / "metadata" / name).open("rb") as handle:
                return handle.read(max_bytes + 1)
        except FileNotFoundError:
            raise trust.NotFoundError(name) from None

    root = (directory / "metadata" / "1.root.json").read_bytes()
    return trust.refresh(root, get, channel="stable", arch=arch, now=now, **more)


def test_the_tree_is_what_a_static_server_needs(repository: Repository, artifacts: Artifacts) -> None:
    found = {
        str(p.relative_to(repository.directory)) for p in repository.directory.rglob("*") if p.is_file()
    }
    kernel, initramfs = (sha256(artifacts[n].read_bytes()).hexdigest() for n in ("kernel", "initramfs"))
    names = ["1.root", "root", "timestamp", "1.snapshot", "1.targets", "1.stable-x86_64", "1.stable-arm64"]
    assert found == {
        *(f"metadata/{name}.json" for name in names),
        f"blobs/sha256/{kernel}",
        f"blobs/sha256/{initramfs}",
        *(f"targets/stable/{arch}/{kernel}.kernel" for arch in ("x86_64", "arm64")),
        *(f"targets/stable/{arch}/{initramfs}.initramfs" for arch in ("x86_64", "arm64")),
    }


def test_the_manifest_says_what_was_added(repository: Repository, artifacts: Artifacts) -> None:
    manifest = repository.manifest("stable", "aarch64")
    assert (manifest.cmdline, manifest.release, manifest.version) == ("quiet arm64", "1.0.0", 1)
    kernel = manifest.artifacts["kernel"]
    data = artifacts["kernel"].read_bytes()
    parts = [data[start:end] for start, end in pairwise(kernel.starts)]
    assert b"".join(parts) == data
    assert kernel.chunks == tuple(sha256(part).hexdigest() for part in parts)
    assert (kernel.length, kernel.sha256) == (len(data), sha256(data).hexdigest())
    hashed = blobs.hash_artifact(artifacts["kernel"])
    assert hashed[:2] == (kernel.length, kernel.sha256)
    assert cut.read(hashed.cut, len(data)) == (kernel.starts, kernel.chunks)
    assert hashed.chunks == tuple(
        sha256(data[start : start + CHUNK_SIZE]).hexdigest() for start in range(0, len(data), CHUNK_SIZE)
    )


def test_each_role_is_pinned_by_version_length_and_hash(repository: Repository) -> None:
    """A version alone would let two sets of bytes pass for the same."""
    metadata = repository.directory / "metadata"
    pinned = {
        **json.loads((metadata / "timestamp.json").read_bytes())["signed"]["meta"],
        **json.loads((metadata / "1.snapshot.json").read_bytes())["signed"]["meta"],
    }
    assert set(pinned) == {
        "snapshot.json", "targets.json", "stable-x86_64.json", "stable-arm64.json"
    }  # fmt: skip
    for name, pin in pinned.items():
        data = (metadata / f"1.{name}").read_bytes()
        digest = sha256(data).hexdigest()
        assert pin == {"version": 1, "length": len(data), "hashes": {"sha256": digest}}


def test_artifacts_stay_where_they_are_and_may_change(repository: Repository, artifacts: Artifacts) -> None:
    artifacts["kernel"].write_bytes(b"overwritten in place")
    kernel = repository.manifest("stable", "x86_64").artifacts["kernel"]
    blob = repository.directory / "blobs/sha256" / kernel.sha256
    assert sha256(blob.read_bytes()).hexdigest() == kernel.sha256


def test_versions_rise_only_where_something_changed(
    repository: Repository, artifacts: Artifacts, keys: ReleaseKeys, now: datetime
) -> None:
    again = Repository.open(repository.directory, keys=keys, now=now)
    again.add("stable", "arm64", {"kernel": artifacts["initramfs"]}, release="1.1")
    again.publish()
    floor = refresh(again.directory, now, arch="arm64").floor
    assert (floor.root, floor.timestamp, floor.snapshot) == (1, 2, 2)
    assert floor.meta == {"targets.json": 1, "stable-x86_64.json": 1, "stable-arm64.json": 2}


def test_publishing_nothing_new_renews_the_timestamp_with_its_key_alone(
    repository: Repository, keys: ReleaseKeys, now: datetime
) -> None:
    later = now + timedelta(days=6)
    only = ReleaseKeys({"timestamp": keys["timestamp"]})
    again = Repository.open(repository.directory, keys=only, now=later)
    again.publish()
    assert again.timestamp_expires == later + timedelta(days=7)
    floor = refresh(again.directory, later + timedelta(days=6)).floor
    assert (floor.timestamp, floor.snapshot) == (2, 1)


def test_a_role_whose_keys_are_not_there_is_not_signed(
    repository: Repository, artifacts: Artifacts, keys: ReleaseKeys, now: datetime
) -> None:
    before = refresh(repository.directory, now)
    again = Repository.open(
        repository.directory, keys=ReleaseKeys({"timestamp": keys["timestamp"]}), now=now
    )
    again.add("stable", "x86_64", artifacts, release="2")
    with pytest.raises(KeysError, match="0 of the keys of stable-x86_64 are at hand, 1 must sign"):
        again.publish()
    assert refresh(repository.directory, now) == before


def test_a_new_channel_is_delegated(
    repository: Repository, artifacts: Artifacts, keys: ReleaseKeys, now: datetime
) -> None:
    again = Repository.open(repository.directory, keys=keys, now=now)
    again.add("beta", "x86_64", artifacts, release="2-beta")
    again.publish()
    assert sorted(again.releases()) == [("beta", "x86_64"), ("stable", "arm64"), ("stable", "x86_64")]
    assert Repository.open(again.directory).manifest("beta", "amd64").release == "2-beta"
    assert refresh(again.directory, now).floor.meta["targets.json"] == 2


@pytest.mark.parametrize("stop", range(17))
def test_interrupted_anywhere_it_is_the_old_or_the_new(
    repository: Repository,
    artifacts: Artifacts,
    keys: ReleaseKeys,
    now: datetime,
    monkeypatch: pytest.MonkeyPatch,
    stop: int,
) -> None:
    """Rotation included: every key but the root's changes with the release."""
    fresh = ReleaseKeys.from_seed("fresh")
    floor = refresh(repository.directory, now).floor
    again = Repository.open(repository.directory, keys=keys, now=now)
    again.rotate(fresh)
    again.add("stable", "x86_64", {"kernel": artifacts["initramfs"]}, release="2")
    calls = 0
    replace = os.replace

    def failing(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        if calls > stop:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing)
        try:
            again.publish()
        except RepositoryError as error:
            assert "No space left" in str(error)  # noqa: PT017
            interrupted = True
        else:
            interrupted = False
    # 2 releases, targets, snapshot, timestamp, 2 roots: all written, then the list, then each named.
    assert interrupted == (stop < 15)
    found = refresh(repository.directory, now, floor=floor)
    assert found.manifest.release in ("1.0.0", "2")
    assert refresh(repository.directory, now, floor=floor, arch="arm64").manifest.release == "1.0.0"
    assert found.manifest.release == "2" or interrupted
    # The next who signs anything completes it, or finds nothing of it.
    healed = Repository.open(repository.directory, keys=keys, now=now)
    assert (healed.versions()["root"], healed.manifest("stable", "x86_64").release) == (
        (2, "2") if stop >= 8 else (1, "1.0.0")
    )
    found = refresh(repository.directory, now, floor=floor)
    assert found.manifest.release == healed.manifest("stable", "x86_64").release
    assert not [p for p in repository.directory.rglob("*") if p.suffix == ".tmp" or "publishing" in p.name]


def test_clients_follow_a_rotation_from_the_first_root(
    repository: Repository, keys: ReleaseKeys, now: datetime
) -> None:
    floor = refresh(repository.directory, now).floor
    first, second = ReleaseKeys.from_seed("first"), ReleaseKeys.from_seed("second")
    for old, new in ((keys, first), (first, second)):
        again = Repository.open(repository.directory, keys=old, now=now)
        again.rotate(new)
        again.publish()
    again.publish()  # with the newest keys alone
    assert len(json.loads((again.directory / "metadata/timestamp.json").read_bytes())["signatures"]) == 1
    found = refresh(repository.directory, now, floor=floor)
    assert found.floor.root == 3
    assert {"1.root.json", "2.root.json", "3.root.json", "root.json"} <= set(found.metadata)


def test_a_rotation_without_enough_old_root_keys_is_refused(
    repository: Repository, keys: ReleaseKeys, now: datetime
) -> None:
    again = Repository.open(repository.directory, keys=keys.but(root=keys["root"][:1]), now=now)
    again.rotate(ReleaseKeys.from_seed("fresh"))
    with pytest.raises(KeysError, match="1 of the keys of the previous root are at hand, 2 must sign"):
        again.publish()


def test_after_a_root_that_came_only_half_way_the_next_goes_on(
    repository: Repository, keys: ReleaseKeys, now: datetime
) -> None:
    old = (repository.directory / "metadata/root.json").read_bytes()
    repository.rotate(keys)
    repository.publish()
    (repository.directory / "metadata/root.json").write_bytes(old)
    again = Repository.open(repository.directory, keys=keys, now=now)
    again.rotate(keys)
    again.publish()
    assert refresh(repository.directory, now).floor.root == 3


def test_what_expires_soon_is_renewed(repository: Repository, keys: ReleaseKeys, now: datetime) -> None:
    assert Repository.open(repository.directory, keys=keys, now=now).renew() == []
    later = now + timedelta(days=100)
    again = Repository.open(repository.directory, keys=keys, now=later)
    assert set(again.renew()) == {"timestamp", "snapshot", "stable-x86_64", "stable-arm64"}
    again.publish()
    assert refresh(again.directory, later + timedelta(days=6)).manifest.expires == later + timedelta(
        days=180
    )


def test_an_expiry_of_its_own_is_signed(repository: Repository, artifacts: Artifacts, now: datetime) -> None:
    repository.add("stable", "x86_64", artifacts, release="2", expires=now + timedelta(hours=1))
    repository.publish()
    refresh(repository.directory, now)
    with pytest.raises(trust.ExpiredError, match="stable-x86_64"):
        refresh(repository.directory, now + timedelta(hours=1))


def test_a_subset_serves_its_release_and_no_other(
    repository: Repository, tmp_path: Path, now: datetime
) -> None:
    served = tmp_path / "served"
    for entry in repository.subset([("stable", "arm64")]):
        target = served / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(entry.file.read_bytes())
    assert not (served / "metadata/1.stable-x86_64.json").exists()
    manifest = refresh(served, now, arch="arm64").manifest
    assert all((served / "blobs/sha256" / a.sha256).exists() for a in manifest.artifacts.values())
    opened = Repository.open(served)
    assert opened.manifest("stable", "arm64") == manifest
    assert opened.metadata([("stable", "arm64")]) == repository.metadata([("stable", "arm64")])
    assert opened.metadata().keys() == opened.metadata([("stable", "arm64")]).keys()
    with pytest.raises(RepositoryError, match="no release of stable"):
        opened.manifest("stable", "x86_64")


def test_nothing_is_handed_out_before_it_is_published(
    tmp_path: Path, artifacts: Artifacts, keys: ReleaseKeys
) -> None:
    repository = Repository.create(tmp_path / "r", keys=keys)
    repository.add("stable", "x86_64", artifacts, release="1")
    with pytest.raises(RepositoryError, match="Publish first"):
        repository.metadata()
    assert not (tmp_path / "r" / "metadata").exists()
    repository.publish()
    assert refresh(tmp_path / "r", datetime.now(UTC)).manifest.release == "1"


def test_a_second_repository_in_the_same_place_is_refused(repository: Repository, keys: ReleaseKeys) -> None:
    with pytest.raises(RepositoryError, match="holds a repository already"):
        Repository.create(repository.directory, keys=keys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channel": "../x"}, "not a channel name"),
        ({"artifacts": ["initramfs"]}, "without a kernel"),
        ({"cmdline": "a\nb"}, "not a kernel command line"),
        ({"cmdline": "x" * 1537}, "1537 bytes"),
        ({"release": ""}, "not a release version"),
    ],
)
def test_what_clients_would_refuse_is_not_signed(
    repository: Repository, artifacts: Artifacts, change: dict[str, Any], message: str
) -> None:
    arguments: dict[str, Any] = {"channel": "stable", "release": "2", "artifacts": list(artifacts)} | change
    chosen = {name: artifacts[name] for name in arguments.pop("artifacts")}
    with pytest.raises(ManifestError, match=message):
        repository.add(arguments.pop("channel"), "x86_64", chosen, **arguments)


def test_an_empty_artifact_is_refused_and_named(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(RepositoryError, match="empty is empty"):
        repository.add("stable", "x86_64", {"kernel": tmp_path / "empty"}, release="2")
    with pytest.raises(RepositoryError, match="cannot be stored"):
        repository.add("stable", "x86_64", {"kernel": tmp_path / "absent"}, release="2")
    assert not list((repository.directory / "blobs/sha256").glob(".*"))


@pytest.mark.parametrize("name", ["timestamp.json", "1.snapshot.json", "1.targets.json", "1.root.json"])
def test_a_damaged_repository_is_named(repository: Repository, name: str) -> None:
    (repository.directory / "metadata" / name).write_bytes(b"{}")
    with pytest.raises(RepositoryError, match=f"damaged.*{name}"):
        Repository.open(repository.directory)
    (repository.directory / "metadata" / name).unlink()
    with pytest.raises(RepositoryError, match="cannot be read"):
        Repository.open(repository.directory)


def test_what_a_power_cut_took_from_the_targets_comes_back(
    repository: Repository, artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.publish()
    links = sorted((repository.directory / "targets").rglob("*.*"))
    assert links
    shutil.rmtree(repository.directory / "targets")
    synced: list[Path] = []
    sync = files.sync_directory

    def note(path: Path) -> None:
        synced.append(path)
        sync(path)

    monkeypatch.setattr(files, "sync_directory", note)
    repository.publish()
    assert sorted((repository.directory / "targets").rglob("*.*")) == links
    assert {link.parent for link in links} | {repository.directory} <= set(synced)
    # Who renews signatures where no artifacts are is not stopped.
    for directory in ("targets", "blobs"):
        shutil.rmtree(repository.directory / directory)
    repository.publish()


def test_what_others_change_while_a_release_is_added_is_not_published_on(
    repository: Repository, artifacts: Artifacts, keys: ReleaseKeys, now: datetime
) -> None:
    """It was right when the repository was opened. Machines would refuse all of it from then on."""
    again = Repository.open(repository.directory, keys=keys, now=now)
    again.add("stable", "x86_64", artifacts, release="2")
    other = repository.directory / "metadata/1.stable-arm64.json"
    other.write_bytes(other.read_bytes().replace(b"quiet", b"debug"))
    with pytest.raises(RepositoryError, match="a machine would refuse what would be published"):
        again.publish()
    assert refresh(repository.directory, now).manifest.release == "1.0.0"


def test_what_has_waited_until_it_expired_is_not_published(
    repository: Repository, artifacts: Artifacts, keys: ReleaseKeys, now: datetime
) -> None:
    online = ReleaseKeys({role: keys[role] for role in ("snapshot", "timestamp")})
    waiting = Repository.open(repository.directory, keys=online, now=now)
    waiting.add("stable", "x86_64", artifacts, release="2", expires=now + timedelta(days=5))
    waiting.settle()
    later = now + timedelta(days=6)
    again = Repository.open(repository.directory, keys=keys, now=later)
    with pytest.raises(RepositoryError, match="stable-x86_64 has expired"):
        again.settle(all_waiting=True)
    assert refresh(repository.directory, later).manifest.release == "1.0.0"
    # What has expired and is published already stops nothing else.
    again.discard()
    again.add("stable", "arm64", artifacts, release="3", expires=later + timedelta(days=1))
    again.settle()
    after = Repository.open(repository.directory, keys=keys, now=later + timedelta(days=2))
    assert "stable-arm64 expired at" in "".join(after.publish().notes)


def test_signatures_that_are_none_of_its_keys_are_not_published(
    repository: Repository, artifacts: Artifacts, keys: ReleaseKeys, now: datetime, tmp_path: Path
) -> None:
    online = ReleaseKeys({role: keys[role] for role in ("snapshot", "timestamp")})
    waiting = Repository.open(repository.directory, keys=online, now=now)
    waiting.add("stable", "x86_64", artifacts, release="2")
    waiting.settle()
    staging.save(tmp_path / "stick", waiting.staged)
    # Without what it replaces, nothing here says whose key counts.
    carried = staging.Carried(staging.load(tmp_path / "stick"), {}, "")
    assert staging.sign(carried, keys) == (["stable-x86_64"], [])
    strangers = ReleaseKeys.from_seed("a stranger")
    staging.sign(carried, strangers)
    assert len(carried.staged["stable-x86_64"].signatures) == 2
    staging.save(tmp_path / "stick", carried.staged)
    again = Repository.open(repository.directory, keys=online, now=now)
    assert again.collect(tmp_path / "stick") == []
    done = again.settle(all_waiting=True)
    assert done.roles == ("stable-x86_64",)
    (stranger,) = strangers["release"]
    assert [note for note in done.notes if f"of key id {stranger.public_key.keyid} does not count" in note]
    published = json.loads((repository.directory / "metadata/17.stable-x86_64.json").read_bytes())
    (key,) = keys["release"]
    assert [each["keyid"] for each in published["signatures"]] == [key.public_key.keyid]
    assert refresh(repository.directory, now).manifest.release == "2"
