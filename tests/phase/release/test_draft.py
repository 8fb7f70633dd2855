"""Changes to a repository before they are published: what is renewed, until when, with which version."""

import shutil
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from phase import trust
from phase.release import check, roles
from phase.release.errors import ManifestError, RepositoryError
from phase.release.keys import ReleaseKeys
from phase.release.lifetimes import Expiry
from phase.release.prune import KEEP_VERSIONS, prune
from phase.release.repository import Repository

USUAL = Expiry()


def opened(
    repository: Repository, keys: ReleaseKeys, now: datetime, expiry: Expiry | None = None
) -> Repository:
    return Repository.open(repository.directory, keys=keys, now=now, expiry=expiry)


def test_a_role_that_is_named_is_renewed_for_its_usual_time(
    repository: Repository, keys: ReleaseKeys, now: datetime
) -> None:
    roles = {"root": USUAL.root, "targets": USUAL.targets, "stable-arm64": USUAL.release}
    later = now + timedelta(days=1)
    again = opened(repository, keys, later)
    assert again.renew(list(roles)) == list(roles)
    assert again.publish().roles == ("root", "stable-arm64", "targets")
    expiries = opened(repository, keys, later).expiries()
    for role, days in roles.items():
        assert expiries[role] == later + timedelta(days=days)
    assert expiries["stable-x86_64"] == now + timedelta(days=USUAL.release)


def test_what_cannot_be_renewed_is_named(repository: Repository, keys: ReleaseKeys, now: datetime) -> None:
    again = opened(repository, keys, now)
    for role in ("snapshot", "timestamp"):
        with pytest.raises(RepositoryError, match=f"every publication renews the {role}"):
            again.renew([role])
    with pytest.raises(RepositoryError, match="has no role 'beta-x86_64'"):
        again.renew(["beta-x86_64"])
    again.renew(["targets"])
    with pytest.raises(RepositoryError, match="targets waits for signatures already"):
        again.renew(["stable-x86_64", "targets"])


def test_only_what_is_half_over_and_can_be_signed_is_renewed_by_itself(
    repository: Repository, keys: ReleaseKeys, now: datetime
) -> None:
    half = now + timedelta(days=USUAL.release / 2)
    releases = {"stable-x86_64", "stable-arm64"}
    online = {"timestamp", "snapshot"}
    assert set(opened(repository, keys, half).due()) == online
    after = half + timedelta(seconds=1)
    assert set(opened(repository, keys, after).due()) == online | releases
    assert set(opened(repository, keys, after).renew()) == online | releases
    some = opened(repository, keys.but(release=()), after)
    assert set(some.renew()) == online
    # What is drafted already is not drafted again.
    drafted = opened(repository, keys, after)
    drafted.renew(["stable-arm64"])
    assert set(drafted.renew()) == online | {"stable-x86_64"}


def test_when_there_is_something_to_renew_is_known(
    repository: Repository, keys: ReleaseKeys, now: datetime
) -> None:
    assert repository.renew_at() == now + timedelta(days=USUAL.timestamp / 2)
    usual = USUAL._replace(timestamp=100, snapshot=50)
    repository.renew()
    again = opened(repository, keys, now, usual)
    assert again.renew_at() == now + timedelta(days=USUAL.timestamp - 50)


@pytest.mark.parametrize(("ahead", "shortened"), [(0.9, []), (1.1, ["snapshot", "timestamp"])])
def test_what_a_clock_that_was_ahead_has_signed_is_shortened(
    repository: Repository, keys: ReleaseKeys, now: datetime, ahead: float, shortened: list[str]
) -> None:
    wrong = opened(repository, keys, now + timedelta(days=ahead))
    wrong.renew()
    wrong.add("stable", "x86_64", {"kernel": _kernel(repository)}, release="2")
    wrong.publish()
    again = opened(repository, keys, now)
    assert again.shorten() == shortened
    if shortened:
        again.publish()
        found = opened(repository, keys, now).expiries()
        assert found["timestamp"] == now + timedelta(days=USUAL.timestamp)
        assert found["snapshot"] == now + timedelta(days=USUAL.snapshot)


def test_usual_times_of_ones_own_are_not_too_long(
    repository: Repository, keys: ReleaseKeys, now: datetime
) -> None:
    usual = USUAL._replace(timestamp=20)
    opened(repository, keys, now, usual).publish()
    assert opened(repository, keys, now, usual).shorten() == []
    assert opened(repository, keys, now).shorten() == ["timestamp"]


def test_what_is_restored_is_above_what_was_published(
    repository: Repository, keys: ReleaseKeys, now: datetime, tmp_path: Path
) -> None:
    shutil.copytree(repository.directory, tmp_path / "backup")
    for release in ("2", "3"):
        repository.add("stable", "x86_64", {"kernel": _kernel(repository)}, release=release)
        repository.publish()
    seen = repository.floor
    back = Repository.open(tmp_path / "backup", keys=keys, now=now, floors=[seen], restore=True)
    assert back.restore() == ["stable-x86_64", "timestamp", "snapshot"]
    back.publish()
    assert back.versions() == {
        **dict.fromkeys(("root", "targets", "stable-arm64"), 1),
        **dict.fromkeys(("stable-x86_64", "snapshot", "timestamp"), 4),
    }
    assert back.manifest("stable", "x86_64").release == "1.0.0"
    assert Repository.open(tmp_path / "backup", keys=keys, now=now, floors=[seen]).restore() == []


def test_where_nothing_is_remembered_it_goes_ahead(
    repository: Repository, keys: ReleaseKeys, now: datetime
) -> None:
    back = Repository.open(repository.directory, keys=keys, now=now, restore=True)
    assert set(back.restore(10)) == {"targets", "stable-x86_64", "stable-arm64", "timestamp", "snapshot"}
    back.publish()
    assert back.versions().pop("root") == 1
    assert {version for role, version in back.versions().items() if role != "root"} == {12}


def test_a_root_that_is_lost_cannot_be_restored(
    repository: Repository, keys: ReleaseKeys, now: datetime
) -> None:
    seen = repository.floor._replace(root=2)
    back = Repository.open(repository.directory, keys=keys, now=now, floors=[seen], restore=True)
    with pytest.raises(RepositoryError, match="is version 1; version 2 was published"):
        back.restore()


def test_what_is_promoted_is_the_same_release(
    repository: Repository, keys: ReleaseKeys, now: datetime
) -> None:
    repository.promote("stable", "beta", "amd64")
    repository.promote("stable", "short", "aarch64", expires=now + timedelta(days=2))
    repository.publish()
    here, there = repository.manifest("stable", "x86_64"), repository.manifest("beta", "x86_64")
    assert there._replace(channel="stable", artifacts={}) == here._replace(artifacts={})
    assert {name: each.sha256 for name, each in there.artifacts.items()} == {
        name: each.sha256 for name, each in here.artifacts.items()
    }
    assert {each.path for each in there.artifacts.values()} == {
        "beta/x86_64/kernel",
        "beta/x86_64/initramfs",
    }
    assert repository.manifest("short", "arm64").expires == now + timedelta(days=2)
    with pytest.raises(RepositoryError, match="no release of absent/x86_64"):
        repository.promote("absent", "beta", "x86_64")
    with pytest.raises(ManifestError):
        repository.promote("stable", "../x", "x86_64")


def test_what_is_withdrawn_is_offered_no_longer(repository: Repository, now: datetime) -> None:
    repository.withdraw("stable", "aarch64")
    repository.publish()
    assert repository.releases() == [("stable", "x86_64")]
    with pytest.raises(RepositoryError, match="no release of stable/arm64"):
        repository.withdraw("stable", "arm64")


def test_new_release_keys_leave_the_root_as_it_is(
    repository: Repository, keys: ReleaseKeys, now: datetime
) -> None:
    """The root names no release keys: its holders are not asked."""
    fresh = ReleaseKeys.from_seed("fresh")
    again = opened(repository, keys, now)
    again.rotate(
        ReleaseKeys({"release": fresh["release"]}),
        rules=roles.rules(keys) | {"release": roles.rules(fresh)["release"]},
    )
    published = again.publish().roles
    assert {"targets", "stable-x86_64"} <= set(published)
    assert "root" not in published


def test_while_new_keys_wait_a_release_goes_out_under_the_old(
    repository: Repository, keys: ReleaseKeys, now: datetime
) -> None:
    fresh, some = ReleaseKeys.from_seed("fresh"), keys.but(targets=())
    waiting = opened(repository, some, now)
    new = {"release": roles.rules(fresh)["release"]}
    waiting.rotate(ReleaseKeys({"release": fresh["release"]}), rules=roles.rules(keys) | new)
    assert "targets" not in waiting.settle().roles
    again = opened(repository, some, now)
    again.add("stable", "x86_64", {"kernel": _kernel(repository)}, release="2")
    assert again.settle().roles == ("stable-x86_64",)
    root = (repository.directory / "metadata/1.root.json").read_bytes()
    found = check.verify(repository.directory, root, channel="stable", arch="x86_64", now=now)
    assert (found.manifest.release, found.floor.meta["targets.json"]) == ("2", 1)
    assert "targets" in opened(repository, keys, now).staged


def test_what_a_client_would_remember_of_any_release(repository: Repository, now: datetime) -> None:
    root = (repository.directory / "metadata/1.root.json").read_bytes()
    repository.rotate(ReleaseKeys.from_seed("second"))
    repository.publish()
    found = check.newest(repository.directory, root, now=now)
    assert found == check.verify(
        repository.directory, root, channel="stable", arch="arm64", now=now
    ).floor._replace(whole=found.whole)
    with pytest.raises(trust.ExpiredError):
        check.newest(repository.directory, root, now=now + timedelta(days=8))


def test_what_is_pruned_is_counted(repository: Repository, now: datetime) -> None:
    for number in range(KEEP_VERSIONS + 2):
        repository.add("stable", "x86_64", {"kernel": _kernel(repository)}, release=str(number))
        repository.publish()
    # Two versions of a release and of the snapshot are too old.
    assert prune(repository) == (4, 0)
    assert prune(repository) == (0, 0)


def _kernel(repository: Repository) -> Path:
    return repository.directory.parent / "initramfs"
