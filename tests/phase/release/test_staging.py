"""What waits for signatures, carried to who holds the keys and back."""

import json
import os
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from phase.release import roles, staging
from phase.release.errors import RepositoryError
from phase.release.keys import ReleaseKeys
from phase.release.pinned import repository_id
from phase.release.repository import Repository
from phase.release.roles import Rule

ONLINE = ("snapshot", "timestamp")


@pytest.fixture
def waiting(
    repository: Repository, artifacts: dict[str, Path], keys: ReleaseKeys, now: datetime
) -> Repository:
    """A release waits."""
    found = Repository.open(
        repository.directory, keys=ReleaseKeys({role: keys[role] for role in ONLINE}), now=now
    )
    found.add("stable", "x86_64", {"kernel": artifacts["initramfs"]}, cmdline="ro", release="2")
    found.settle()
    return found


@pytest.fixture
def stick(waiting: Repository, tmp_path: Path) -> Path:
    staging.save_carried(tmp_path / "stick", waiting.staged, waiting.carried())
    return tmp_path / "stick"


def test_what_is_carried_says_what_it_replaces_and_whose_it_is(stick: Path, waiting: Repository) -> None:
    found = staging.load_carried(stick)
    assert found.staged.keys() == {"stable-x86_64"}
    published = waiting.published()
    assert found.before == {role: published[role] for role in ("root", "targets", "stable-x86_64")}
    first = (waiting.directory / "metadata/1.root.json").read_bytes()
    assert found.repository == repository_id(first)
    assert stick.stat().st_mode & 0o777 == 0o755


def test_what_replaces_nothing_says_so(repository: Repository, stick: Path) -> None:
    for path in (stick / "published").iterdir():
        if path.name != "1.root.json":
            path.unlink()
    assert staging.load_carried(stick).before.keys() == {"root"}
    (stick / "published/1.root.json").unlink()
    with pytest.raises(RepositoryError, match=r"1\.root\.json is missing"):
        staging.load_carried(stick)


def test_the_first_root_is_whose_it_is(tmp_path: Path, keys: ReleaseKeys) -> None:
    first = Repository.create(
        tmp_path / "r", keys=ReleaseKeys({role: keys[role] for role in ONLINE}), rules=roles.rules(keys)
    )
    first.settle()
    staging.save_carried(tmp_path / "stick", first.staged, first.carried())
    found = staging.load_carried(tmp_path / "stick")
    assert found.before == {}
    assert found.repository == repository_id(first.staged["root"].to_bytes())


def test_each_root_that_is_carried_is_signed_by_the_one_before(
    repository: Repository, stick: Path, keys: ReleaseKeys
) -> None:
    repository.rotate(ReleaseKeys.from_seed("later"))
    repository.publish()
    second = (repository.directory / "metadata/2.root.json").read_bytes()
    (stick / "published/2.root.json").write_bytes(second)
    # Its targets are those of the root before.
    with pytest.raises(RepositoryError, match=r"targets\.json is not signed by the keys"):
        staging.load_carried(stick)
    document = json.loads(second)
    by_old = {signer.public_key.keyid for signer in keys["root"]}
    document["signatures"] = [each for each in document["signatures"] if each["keyid"] not in by_old]
    (stick / "published/2.root.json").write_text(json.dumps(document))
    with pytest.raises(RepositoryError, match=r"2\.root\.json is not signed by the keys"):
        staging.load_carried(stick)


def test_a_first_root_that_has_not_signed_itself_is_refused(stick: Path) -> None:
    path = stick / "published/1.root.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"signatures": []}))
    with pytest.raises(RepositoryError, match=r"1\.root\.json is not signed by the keys"):
        staging.load_carried(stick)


def test_a_later_round_leaves_nothing_of_the_earlier(stick: Path, waiting: Repository) -> None:
    (stick / "published/17.root.json").write_bytes((stick / "published/1.root.json").read_bytes())
    (stick / "beta-x86_64.json").write_bytes((stick / "stable-x86_64.json").read_bytes())
    (stick / "notes.txt").write_text("ours")
    staging.save_carried(stick, waiting.staged, waiting.carried())
    assert sorted(str(path.relative_to(stick)) for path in stick.rglob("*.*")) == [
        "notes.txt",
        *(f"published/{name}.json" for name in ("1.root", "stable-x86_64", "targets")),
        "stable-x86_64.json",
    ]


@pytest.mark.parametrize("name", ["root", "targets", "stable-x86_64", "other", "timestamp"])
def test_other_files_that_end_like_ours_are_not_removed(
    tmp_path: Path, waiting: Repository, name: str
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / f"mine/{name}.json").write_text('{"mine": 1}')
    with pytest.raises(RepositoryError, match="something else than a round of signing"):
        staging.save_carried(tmp_path / "mine", waiting.staged, waiting.carried())
    assert (tmp_path / f"mine/{name}.json").read_text() == '{"mine": 1}'


def test_what_is_no_metadata_file_is_not_read(stick: Path) -> None:
    path = stick / "stable-x86_64.json"
    good = path.read_bytes()
    path.write_bytes(good + b" " * 5_000_000)
    with pytest.raises(RepositoryError, match="is damaged"):
        staging.load(stick)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(RepositoryError, match="cannot be read"):
        staging.load(stick)
    path.unlink()
    with pytest.raises(RepositoryError, match="holds nothing to sign"):
        staging.load_carried(stick)
    assert staging.load(stick / "absent") == {}


def test_more_files_than_a_repository_has_are_not_read(tmp_path: Path) -> None:
    for number in range(staging._MAX_FILES + 1):
        (tmp_path / f"{number}.json").touch()
    with pytest.raises(RepositoryError, match=f"has {staging._MAX_FILES + 1} files"):
        staging.load(tmp_path)


def test_each_key_at_hand_signs_what_its_role_is(waiting: Repository, keys: ReleaseKeys) -> None:
    carried = staging.Carried(waiting.staged, {}, "")
    assert staging.sign(carried, ReleaseKeys({"targets": keys["targets"]})) == ([], [])
    assert staging.sign(carried, keys) == (["stable-x86_64"], [])
    (key,) = keys["release"]
    assert list(carried.staged["stable-x86_64"].signatures) == [key.public_key.keyid]


def test_a_key_that_the_role_does_not_have_signs_nothing(
    waiting: Repository, keys: ReleaseKeys, tmp_path: Path
) -> None:
    staging.save_carried(tmp_path / "stick", waiting.staged, waiting.carried())
    carried = staging.load_carried(tmp_path / "stick")
    strangers = ReleaseKeys.from_seed("a stranger")
    (stranger,) = strangers["release"]
    public = stranger.public_key.keyval["public"]
    assert staging.sign(carried, strangers) == ([], [("stable-x86_64", public)])
    assert not carried.staged["stable-x86_64"].signatures
    assert staging.sign(carried, strangers | keys) == (["stable-x86_64"], [("stable-x86_64", public)])


def test_present_and_next_keys_of_a_role_sign(
    waiting: Repository, keys: ReleaseKeys, tmp_path: Path
) -> None:
    new = ReleaseKeys.from_seed("next")
    both = roles.rules(keys | new)["root"]
    waiting.rotate(ReleaseKeys({}), rules=roles.rules(keys) | {"root": both})
    waiting.settle()
    staging.save_carried(tmp_path / "stick", waiting.staged, waiting.carried())
    carried = staging.load_carried(tmp_path / "stick")
    only = {"root": new["root"]}
    assert staging.sign(carried, ReleaseKeys(only)) == (["root"], [])
    assert staging.sign(carried, ReleaseKeys({"root": keys["root"]})) == (["root"], [])


def test_a_release_is_shown_with_what_it_replaces(waiting: Repository, now: datetime) -> None:
    (role, metadata), before = next(iter(waiting.staged.items())), waiting.published()
    lines = list(staging.summary(role, metadata, before[role]))
    kernel = waiting.manifest("stable", "x86_64").artifacts["initramfs"]
    assert lines == [
        f"stable-x86_64, version 17, holds until {now + timedelta(days=180):%Y-%m-%d}",
        "  release 2 of stable for x86_64",
        "  in place of 1.0.0, version 1",
        "  command line: ro",
        f"  kernel: {kernel.length} bytes, sha256 {kernel.sha256}",
    ]
    assert list(staging.summary(role, metadata)) == [*lines[:2], *lines[3:]]


def test_what_changes_of_who_signs_is_marked(keys: ReleaseKeys) -> None:
    one, two, three = sorted(roles.public(signer.public_key) for signer in keys["root"])
    by = {roles.public(signer.public_key): signer.public_key for signer in keys["root"]}
    old = {"root": Rule((by[one], by[two]), 1), "gone": Rule((by[one],), 1), "same": Rule((by[one],), 1)}
    new = {
        "root": Rule((by[two], by[three]), 2),
        "same": Rule((by[one],), 1),
        "more": Rule((by[three],), 1),
    }
    assert list(staging.changes(old, new)) == [
        "  2 of 2 sign root, until now 1 of 2:",
        f"    {two}",
        f"   +{three}",
        f"   -{one}",
        "  1 of 1 sign same:",
        f"    {one}",
        "  1 of 1 sign more, new:",
        f"   +{three}",
        "  gone is withdrawn: it is offered no longer",
    ]
    # Where nothing was before, nothing changes.
    assert list(staging.changes({}, {"more": new["more"]})) == ["  1 of 1 sign more:", f"    {three}"]
