"""Signing keys: private unless they say they are not, and never overwritten."""

import json
import os
import stat
from pathlib import Path

import pytest

from phase.release import keys as release_keys
from phase.release.errors import KeysError
from phase.release.keys import ROLES, ReleaseKeys

FIXTURES = Path(__file__).parents[3] / "fixtures" / "keys"


def publics(keys: ReleaseKeys) -> dict[str, list[str]]:
    return {role: [signer.public_hex for signer in keys[role]] for role in ROLES}


def test_keys_for_tests_say_so_and_are_the_same_each_time(tmp_path: Path) -> None:
    saved = release_keys.save_test_keys(tmp_path / "keys", "a seed")
    assert (
        publics(saved)
        == publics(ReleaseKeys.from_seed("a seed"))
        == publics(release_keys.load(tmp_path / "keys"))
    )
    for path in (tmp_path / "keys").iterdir():
        assert "proves nothing" in json.loads(path.read_bytes())["test"]


def test_keys_are_kept_for_their_owner_alone(tmp_path: Path) -> None:
    keys = ReleaseKeys.generate()
    keys.save(tmp_path / "keys")
    assert publics(release_keys.load(tmp_path / "keys")) == publics(keys)
    names = sorted(path.name for path in (tmp_path / "keys").iterdir())
    roots = ["root-1.json", "root-2.json", "root-3.json"]
    assert names == ["release.json", *roots, "snapshot.json", "targets.json", "timestamp.json"]
    assert {stat.S_IMODE((tmp_path / "keys" / name).stat().st_mode) for name in names} == {0o600}
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


def test_every_key_is_its_own() -> None:
    keys = [public for found in publics(ReleaseKeys.generate()).values() for public in found]
    assert len(keys) == len(set(keys)) == 7


@pytest.mark.parametrize(("count", "threshold"), [(1, 1), (2, 2), (3, 2), (5, 3)])
def test_more_than_half_must_sign(count: int, threshold: int) -> None:
    assert ReleaseKeys.generate({"root": count}).threshold("root") == threshold


def test_a_directory_may_hold_some_roles_only(tmp_path: Path) -> None:
    ReleaseKeys.from_seed("some", {"timestamp": 1}).save(tmp_path)
    found = release_keys.load(tmp_path)
    assert [role for role in ROLES if found[role]] == ["timestamp"]


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    ReleaseKeys.from_seed("a").save(tmp_path)
    with pytest.raises(KeysError, match="never overwritten"):
        ReleaseKeys.from_seed("b").save(tmp_path)
    assert publics(release_keys.load(tmp_path)) == publics(ReleaseKeys.from_seed("a"))


def test_an_empty_passphrase_is_not_the_same_as_none(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match="0 characters"):
        ReleaseKeys.from_seed("a").save(tmp_path / "keys", passphrase="")
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620, 0o604, 0o601])
def test_a_key_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    ReleaseKeys.from_seed("a").save(tmp_path)
    (tmp_path / "targets.json").chmod(mode)
    with pytest.raises(KeysError, match=f"mode {mode:04o}"):
        release_keys.load(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize(("mode", "fine"), [(0o400, True), (0o440, True), (0o460, False), (0o444, False)])
def test_another_owner_may_give_his_key_to_a_group(tmp_path: Path, mode: int, fine: bool) -> None:
    """As secrets of a service are mounted: root's, readable for the service's group, and often a link."""
    ReleaseKeys.from_seed("a").save(tmp_path / "data")
    (tmp_path / "keys").mkdir()
    os.chown(tmp_path / "data/targets.json", 12345, 12345)
    (tmp_path / "data/targets.json").chmod(mode)
    (tmp_path / "keys/targets.json").symlink_to("../data/targets.json")
    if fine:
        assert release_keys.load(tmp_path / "keys")["targets"]
    else:
        with pytest.raises(KeysError, match=f"mode {mode:04o}"):
            release_keys.load(tmp_path / "keys")


@pytest.mark.timeout(20)
def test_a_key_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "root.json")
    with pytest.raises(KeysError, match="not a regular file"):
        release_keys.load(tmp_path)


def test_names_tell_keys_apart(tmp_path: Path) -> None:
    keys = ReleaseKeys.from_seed("a")
    for name, signer in zip(("root-alice", "root-bob_2", "root-3"), keys["root"], strict=True):
        release_keys.save_one(tmp_path / f"{name}.json", "root", signer)
    for other in ("pinned.json", "roots.json", "root-.json", "root-a.b.json", "snapshot.json.bak"):
        (tmp_path / other).write_text("no key")
    assert set(publics(release_keys.load(tmp_path))["root"]) == set(publics(keys)["root"])


@pytest.mark.parametrize(
    "change", [{"seed": "00"}, {"public": "00" * 32}, {"role": "root"}, {"format": "x"}, {"seed": "zz"}]
)
def test_a_damaged_key_is_refused(tmp_path: Path, change: dict[str, str]) -> None:
    ReleaseKeys.from_seed("a").save(tmp_path)
    path = tmp_path / "targets.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(KeysError, match=r"targets.json is damaged"):
        release_keys.load(tmp_path)


def test_a_directory_without_keys_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text("{}")
    with pytest.raises(KeysError, match="holds no keys"):
        release_keys.load(tmp_path)
    with pytest.raises(KeysError, match="no keys can be read"):
        release_keys.load(tmp_path / "absent")


@pytest.mark.parametrize("name", ["lab", "stranger"])
def test_the_committed_test_keys_are_what_they_say(name: str) -> None:
    assert publics(release_keys.load(FIXTURES / name)) == publics(ReleaseKeys.from_seed(name))
    for path in (FIXTURES / name).iterdir():
        assert "test key" in json.loads(path.read_text())["test"]
