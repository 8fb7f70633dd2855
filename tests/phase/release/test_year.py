"""A year of an operator: what waits, what expires, what is lost, and what comes from a backup."""

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from phase import trust
from phase.cli import _release
from phase.release import check
from tests.phase.release.shop import ROOT, Shop

#: Lets the operator's and the machine's clock go on by so many days.
Later = Callable[[float], None]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.chdir(tmp_path)
    found = Shop()
    found.add("1.0")
    return found


@pytest.fixture
def later(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Later:
    passed = timedelta()

    def clock(seen: float = 0.0) -> datetime:
        return datetime.now(UTC) + passed

    def go_on(days: float) -> None:
        nonlocal passed
        passed += timedelta(days=days)
        monkeypatch.setattr(Shop, "now", lambda _: clock())

    monkeypatch.setattr(_release, "now", clock)
    return go_on


def test_a_command_that_failed_is_not_carried_out_by_the_next_one(shop: Shop) -> None:
    shop.add("2.0-rc", "testing")
    some = shop.hand_over("some", "targets", "release", "snapshot")
    assert "keys of timestamp are at hand" in shop.refused(f"promote repo testing stable {some}")
    shop.add("3.0", "beta")
    assert (shop.boots(), shop.boots("beta")) == ("1.0", "3.0")


def test_a_release_key_rotation_that_waits_while_cron_refreshes(shop: Shop, later: Later) -> None:
    shop.run("key new/release.json --role release --plain")
    almost = shop.hand_over("almost", "root", "snapshot", "timestamp", "release")
    said = shop.run(f"rotate repo --yes --public new/release.pub {almost} --keys new")
    assert "targets: 0 of 1 signatures" in said
    later(100)
    cron = shop.hand_over("cron", "snapshot", "timestamp", "release")
    assert "renewed" in shop.run(f"refresh repo {cron}")
    shop.run("sign repo --keys keys --keys new")
    assert shop.machine().manifest.expires > shop.now() + timedelta(days=30)
    # The root names no release keys, so it stays.
    assert shop.machine().floor.root == 1


def test_the_targets_role_after_a_year(shop: Shop, later: Later) -> None:
    online = shop.hand_over("online", "snapshot", "timestamp", "release")
    later(300)
    said = shop.run(f"refresh repo {online}", ends=3)
    assert "targets expires at" in said
    assert "run `phase release renew` with a key of targets" in said
    assert "targets: ends" in shop.run("status repo", ends=3)
    shop.run(f"renew repo {shop.hand_over('offline', 'targets')} --keys online")
    assert shop.run("status repo").count("holds") == 5
    later(300)
    shop.run(f"refresh repo {online}", ends=3)
    assert shop.boots() == "1.0"


def test_what_has_expired_is_said_and_hides_nothing(shop: Shop, later: Later) -> None:
    """The timestamp is renewed all the same: what is not expired goes on."""
    online = shop.hand_over("online", "snapshot", "timestamp")
    later(200)
    said = shop.run(f"refresh repo {online}", ends=3)
    assert "stable-x86_64 expired at" in said
    with pytest.raises(trust.ExpiredError, match="stable-x86_64"):
        shop.machine()
    assert json.loads(shop.run("status repo --json", ends=3))["roles"][-1]["state"] == "expired"
    shop.run("renew repo --keys keys")
    assert shop.boots() == "1.0"


def test_refresh_with_one_of_two_needed_release_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shop = Shop()
    for number in (1, 2):
        shop.run(f"key two/release-{number}.json --role release --plain")
    public = "--public two/release-1.pub --public two/release-2.pub"
    shop.run(f"rotate repo --yes {public} --threshold release=2 --keys keys --keys two")
    shop.add("1.0", more="--keys keys --keys two")
    Path("two/release-2.json").rename("release-2.json")
    monkeypatch.setattr(_release, "now", lambda: datetime.now(UTC) + timedelta(days=100))
    assert "renewed snapshot" in shop.run("refresh repo --keys keys --keys two")
    monkeypatch.setattr(_release, "now", lambda: datetime.now(UTC) + timedelta(days=140))
    said = shop.run("refresh repo --keys keys --keys two", ends=3)
    assert "stable-x86_64 expires" in said
    assert "with 2 keys of release" in said
    assert shop.machine(now=datetime.now(UTC) + timedelta(days=146)).manifest.release == "1.0"


def test_a_release_key_offline_and_a_release_older_than_180_days(shop: Shop, later: Later) -> None:
    online = shop.hand_over("online", "snapshot", "timestamp")
    for day in range(0, 130, 5):
        later(5)
        assert shop.invoke(f"refresh repo {online}").exit_code == 0, day
    later(30)
    assert "stable-x86_64 expires" in shop.run(f"refresh repo {online}", ends=3)


def test_verify_on_a_repository_with_no_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shop = Shop()
    assert "root, timestamp, snapshot and targets verified" in shop.run("verify repo")
    shutil.copy(ROOT, "another.json")
    with monkeypatch.context() as patch:
        patch.setattr(_release, "now", lambda: datetime.now(UTC) + timedelta(days=5 * 365))
        assert "expired root at" in shop.refused("verify repo")
    for name in ("1.targets", "1.snapshot", "timestamp", "1.root"):
        path = Path(f"repo/metadata/{name}.json")
        good = path.read_bytes()
        path.write_bytes(good.replace(b"expires", b"Expires", 1))
        shop.refused("verify repo")
        path.write_bytes(good)
    Path("other").mkdir()
    with monkeypatch.context() as patch:
        patch.chdir("other")
        Shop()
    assert "signed by 0 of" in shop.refused("verify repo --root other/repo/metadata/1.root.json")


def test_add_1_1_waits_and_refresh_renews_1_0(shop: Shop, later: Later) -> None:
    online = shop.hand_over("online", "snapshot", "timestamp")
    cron = shop.hand_over("cron", "snapshot", "timestamp", "release")
    shop.add("1.1", more=online)
    later(100)
    assert "renewed" in shop.run(f"refresh repo {cron}")
    assert (shop.boots(), shop.machine().manifest.version) == ("1.0", 2)
    assert "stable-x86_64, version 17, waits" in shop.run("status repo")
    shop.run("sign repo --keys keys")
    assert shop.boots() == "1.1"


def test_days_5_then_refresh_or_promote(shop: Shop, later: Later) -> None:
    shop.add("0.9", "testing", "--days 5 --keys keys")
    later(3)
    assert "renewed testing-x86_64" in shop.run("refresh repo --keys keys")
    assert shop.machine("testing").manifest.expires < shop.now() + timedelta(days=5.1)
    shop.run("promote repo testing stable --keys keys")
    assert shop.machine().manifest.expires < shop.now() + timedelta(days=5.1)


def test_a_mistaken_channel_is_given_up(shop: Shop) -> None:
    online = shop.hand_over("online", "snapshot", "timestamp")
    shop.add("1.1", "stabel", online)
    shop.add("1.1", more=online)
    assert "does not wait" in shop.refused("discard repo other --yes")
    assert "nothing has changed" in shop.refused("discard repo --yes".replace(" --yes", ""))
    assert "given up: stabel-x86_64, targets" in shop.run("discard repo stabel-x86_64 --yes")
    assert "stabel" not in shop.run("status repo")
    shop.run("sign repo --keys keys")
    assert shop.boots() == "1.1"


def test_a_hopeless_rotation_is_given_up(shop: Shop) -> None:
    """Two of three root keys are lost: it waits for ever, and nothing else does."""
    shop.run("key new/timestamp.json --role timestamp --plain")
    lone = shop.hand_over("lone", "targets", "release", "snapshot", "timestamp")
    shop.run(f"rotate repo --yes --public new/timestamp.pub {lone} --keys new")
    shop.add("1.1", more=lone)
    assert shop.boots() == "1.1"
    shop.add("1.0", "beta", lone)
    assert "given up" in shop.run("discard repo --yes")
    shop.add("1.0", "beta", lone)
    assert shop.boots("beta") == "1.0"


def test_show_tells_what_waits_and_what_is_trusted(shop: Shop) -> None:
    online = shop.hand_over("online", "snapshot", "timestamp")
    shop.add("1.1", more=online)
    shop.run("key new/timestamp.json --role timestamp --plain")
    shop.run("rotate repo --yes --public new/timestamp.pub --keys new")
    facts = json.loads(shop.run("show repo --json"))
    assert [each["release"] for each in facts["releases"]] == ["1.0"]
    assert facts["roles"]["timestamp"]["keys"] == [shop.keys["timestamp"][0].public_hex]
    assert {each["role"] for each in facts["waiting"]} == {"root", "stable-x86_64"}
    said = shop.run("show repo")
    assert "stable/x86_64 1.0 (version 1)" in said
    assert "waits for signatures: stable-x86_64 0/1" in said


def test_the_stick_of_the_first_round_used_for_the_second(shop: Shop) -> None:
    online = shop.hand_over("online", "snapshot", "timestamp")
    for number, channel in enumerate(("stable", "beta", "stable")):
        shop.add(f"1.{number + 1}", channel, online)
        shop.run("sign repo --export stick")
        shop.run("sign stick --keys keys")
        shop.run(f"sign repo --import stick {online}")
        assert shop.boots(channel) == f"1.{number + 1}"
    # And the other way round: an old stick beside a new round.
    shop.add("1.4", more=online)
    shutil.copy("stick/stable-x86_64.json", "old.json")
    assert "is published already" in shop.run(f"sign repo --import stick {online}")
    shop.run("sign repo --keys keys")
    assert shop.boots() == "1.4"


def test_nothing_of_others_is_removed_by_an_export(shop: Shop) -> None:
    shop.add("1.1", more=shop.hand_over("online", "snapshot", "timestamp"))
    assert "something else than a round of signing" in shop.refused("sign repo --export keys")
    assert Path("keys/targets.json").exists()


def test_the_publishers_clock_a_year_behind(shop: Shop, later: Later) -> None:
    later(-365)
    assert "this machine's clock says" in shop.refused("refresh repo --keys keys")
    assert "this machine's clock says" in shop.refused(
        "add repo stable x86_64 --kernel kernel --release 2 --keys keys"
    )
    later(365 + 365)
    shop.run("refresh repo --keys keys", ends=3)
    later(-365)
    assert "--clock-was-ahead" in shop.refused("refresh repo --keys keys")
    shop.run("refresh repo --clock-was-ahead --keys keys")
    assert shop.machine().manifest.release == "1.0"


def test_a_restore_from_an_old_backup(shop: Shop) -> None:
    shutil.copytree("repo", "backup")
    for number in range(5):
        shop.add(f"1.{number + 1}")
        shop.add(f"1.{number + 1}", "late")
    seen = shop.machine().floor
    shutil.rmtree("repo")
    shutil.copytree("backup", "repo")
    assert "phase release restore" in shop.refused("refresh repo --keys keys")
    said = shop.run("restore repo --keys keys")
    assert "stable-x86_64" in said
    assert (
        check.verify(
            Path("repo"),
            ROOT.read_bytes(),
            channel="stable",
            arch="x86_64",
            now=datetime.now(UTC),
            floor=None,
        ).manifest.release
        == "1.0"
    )
    assert shop.machine(floor=seen._replace(meta={k: v for k, v in seen.meta.items() if "late" not in k}))
    shop.add("2.0")
    shop.add("2.0", "late")
    assert (shop.machine(floor=seen).manifest.release, shop.boots("late")) == ("2.0", "2.0")


def test_a_restore_where_the_keys_remember_nothing(shop: Shop) -> None:
    shutil.copytree("repo", "backup")
    shutil.copytree("keys", "old-keys")
    for number in range(3):
        shop.add(f"1.{number + 1}")
    seen = shop.machine().floor
    for name, copy in (("repo", "backup"), ("keys", "old-keys")):
        shutil.rmtree(name)
        shutil.copytree(copy, name)
    assert "give --ahead" in shop.refused("restore repo --keys keys")
    shop.run("restore repo --ahead 10 --keys keys")
    assert shop.machine(floor=seen).manifest.release == "1.0"


def test_withdraw_and_prune(shop: Shop, later: Later) -> None:
    shop.add("2.0", "beta")
    seen = shop.machine("beta").floor
    blobs = set(Path("repo/blobs/sha256").iterdir())
    shop.run("withdraw repo beta x86_64 --keys keys")
    assert shop.machine(floor=seen).manifest.release == "1.0"
    with pytest.raises(trust.WrongTargetError, match="no release of beta-x86_64"):
        shop.machine("beta")
    # A machine may be in the middle of it.
    assert "removed 0 metadata files and 0 artifacts" in shop.run("prune repo")
    for path in Path("repo/metadata").iterdir():
        os.utime(path, (0, path.stat().st_mtime - 3700))
    assert "removed 1 metadata files and 1 artifacts" in shop.run("prune repo")
    assert len(set(Path("repo/blobs/sha256").iterdir())) == len(blobs) - 1
    shop.add("2.1", "beta")
    assert shop.machine("beta", floor=seen).manifest.release == "2.1"


def test_an_export_of_one_release_is_verified(shop: Shop) -> None:
    shop.add("2.0", "beta")
    shop.run("export repo part --only stable/x86_64")
    said = shop.run("verify part")
    assert "stable/x86_64 1.0 (version 1) verified" in said
    assert "not here: beta-x86_64" in said
    Path("part/metadata/1.stable-x86_64.json").unlink()
    assert "not here: beta-x86_64, stable-x86_64" in shop.run("verify part")


def test_prune_keeps_what_waits(shop: Shop) -> None:
    shop.add("1.1", more=shop.hand_over("online", "snapshot", "timestamp"))
    shop.run("prune repo")
    shop.run("sign repo --keys keys")
    assert shop.boots() == "1.1"


def test_what_is_held_is_published_by_sign_alone(shop: Shop) -> None:
    """All have signed it; only who held it knows why."""
    shop.run("key new/release.json --role release --plain")
    shop.run("rotate repo --yes --stage --public new/release.pub --keys keys --keys new")
    shop.add("1.1", more="--keys keys --keys new")
    assert (shop.boots(), shop.machine().floor.root) == ("1.1", 1)
    assert "targets" in shop.run("status repo")
    shop.run("sign repo --keys keys --keys new")
    facts = json.loads(shop.run("show repo --json"))
    assert facts["roles"]["release"]["keys"] == [Path("new/release.pub").read_text().split()[2]]
    assert shop.boots() == "1.1"


def test_what_is_held_outlives_a_refresh(shop: Shop, later: Later) -> None:
    shop.add("1.1", more="--stage --keys keys")
    later(100)
    shop.run("refresh repo --keys keys")
    assert shop.boots() == "1.0"
    shop.run("sign repo --keys keys")
    assert shop.boots() == "1.1"


@pytest.mark.parametrize("hours", [2, 20, 30])
def test_a_clock_that_was_some_hours_ahead(shop: Shop, later: Later, hours: float) -> None:
    later(hours / 24)
    shop.run("refresh repo --keys keys")
    later(-hours / 24)
    assert "--clock-was-ahead" in shop.refused("refresh repo --keys keys")
    shop.run("refresh repo --clock-was-ahead --keys keys")
    shop.add("1.1")
    assert shop.boots() == "1.1"


def test_a_part_of_a_repository_is_not_restored(shop: Shop) -> None:
    shop.add("2.0", "beta")
    shop.run("export repo part --only stable/x86_64")
    shutil.rmtree("repo")
    shutil.copytree("part", "repo")
    assert "metadata of beta-x86_64 is not here" in shop.refused("restore repo --ahead 5 --keys keys")


def test_before_the_first_signatures_each_command_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shop = Shop()
    shutil.rmtree("repo")
    shutil.rmtree("keys")
    shop.hand_over("keys", "root", "targets", "snapshot", "timestamp")
    shop.hand_over("release", "release")
    shop.run("key other/root.json --role root --plain")
    shop.run("init repo --keys release --keys keys --public other/root.pub")
    for command in (
        "refresh repo --keys keys",
        "restore repo --keys keys",
        "verify repo",
        "export repo out",
    ):
        assert "waits for its first signatures" in shop.refused(command)
    assert "not published yet" in shop.run("show repo")
    shop.run("sign repo --keys other --keys keys --keys release")
    assert "holds a repository already" in shop.refused("init repo --new-keys more --plain")
    assert not Path("more").exists()
