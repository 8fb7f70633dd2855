"""Who can write to the repository, the stick or the export, and holds no key, gets nothing signed."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.phase.release.shop import Shop, change

#: What an operator does with all keys at hand.
COMMANDS = (
    "refresh repo --keys keys",
    "promote repo testing stable --keys keys",
    "promote repo stable other --keys keys",
    "add repo stable x86_64 --kernel kernel --release 9 --keys keys",
    "add repo new x86_64 --kernel kernel --release 9 --keys keys",
    "renew repo stable-x86_64 --keys keys",
    "renew repo targets --keys keys",
    "renew repo root --keys keys",
    "rotate repo --yes --keys keys",
    "withdraw repo testing x86_64 --keys keys",
    "restore repo --ahead 5 --keys keys",
)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.chdir(tmp_path)
    found = Shop()
    found.add("1.0", "testing")
    found.add("1.0")
    return found


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("role", ["1.stable-x86_64", "1.testing-x86_64", "3.targets", "1.root"])
def test_refresh_with_the_release_key_at_hand(shop: Shop, command: str, role: str) -> None:
    """Nothing is built on what a stranger has changed, whatever is signed with it."""
    changed = {"expires": "2030-01-01T00:00:00Z"}
    change(f"repo/metadata/{role}.json", **changed)
    # Another first root is another repository.
    why = (
        "have signed for another repository" if role == "1.root" else "changed by somebody without the keys"
    )
    assert why in shop.refused(command)


def test_a_whole_repository_of_strangers_is_not_signed(shop: Shop) -> None:
    """Its own signatures are right; it is only not the one that these keys have signed for."""
    root = Path("repo/metadata/1.root.json").read_bytes()
    Path("true.root.json").write_bytes(root)
    Path("strange").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir("strange")
        Shop().add("6.6.6")
    shutil.rmtree("repo")
    shutil.copytree("strange/repo", "repo")
    for command in COMMANDS:
        assert "have signed for another repository" in shop.refused(command)
    assert "begins with another root" in shop.refused("refresh repo --keys keys --root true.root.json")


def test_an_older_state_is_not_signed_on_top_of(shop: Shop) -> None:
    shutil.copytree("repo", "older")
    shop.add("1.1")
    shutil.rmtree("repo")
    shutil.copytree("older", "repo")
    for command in COMMANDS[:-1]:
        assert "older than what these keys have signed" in shop.refused(command)


def test_promote_testing_stable(shop: Shop) -> None:
    """What waits in a channel, or was put there to wait, is not promoted."""
    online = shop.hand_over("online", "snapshot", "timestamp")
    shop.add("6.6.6", "testing", online)
    shop.run("promote repo testing stable --keys keys")
    assert (shop.boots(), shop.boots("testing")) == ("1.0", "1.0")


def test_what_others_let_wait_is_not_signed_on_the_way(shop: Shop) -> None:
    online = shop.hand_over("online", "snapshot", "timestamp")
    shop.add("6.6.6", "evil", online)
    shop.add("6.6.6", more=online)
    said = shop.add("2.0", "beta")
    assert "targets: 0 of 1 signatures" in said  # a stranger's channel is in it: `sign` shows it
    shop.add("1.1", "testing")
    assert (shop.boots("testing"), shop.boots()) == ("1.1", "1.0")
    shown = shop.run("sign repo --keys keys")
    assert "release 6.6.6 of evil for x86_64" in shown


def test_rotate_shows_what_changes_and_asks(shop: Shop) -> None:
    shop.run("key new/timestamp.json --role timestamp --plain")
    words = "rotate repo --public new/timestamp.pub --keys keys --keys new"
    assert "nothing has changed" in shop.refused(words)
    assert "nothing has changed" in shop.refused(words, says="n\n")
    said = shop.run(words, says="y\n")
    new = Path("new/timestamp.pub").read_text().split()[2]
    assert f"   +{new}" in said
    assert f"   -{shop.keys['timestamp'][0].public_hex}" in said


def test_rotate_public_with_one_root_key_of_three(shop: Shop) -> None:
    shop.run("key new/root.json --role root --plain")
    words = "rotate repo --public new/root.pub --keys keys --keys new"
    done = shop.invoke(words, says="n\n")
    assert (done.exit_code, "1 of 1 sign root, until now 2 of 3" in done.output) == (1, True)
    assert shop.machine().floor.root == 1


def test_a_prepared_stick_shows_what_is_signed(shop: Shop) -> None:
    """A role's name, a key and a release that would steer the terminal are refused or shown in one line."""
    online = shop.hand_over("online", "snapshot", "timestamp")
    shop.add("1.1", more=online)
    shop.run("sign repo --export stick")
    waiting = json.loads(Path("stick/stable-x86_64.json").read_bytes())
    name = "\x1b]0;x\x07.json"
    Path("stick", name).write_text(json.dumps(waiting))
    assert "\x1b" not in shop.refused("sign stick --keys keys")
    Path("stick", name).unlink()
    waiting["signed"]["x-phase"]["release"] = "1.1\x1b[2K"
    Path("stick/stable-x86_64.json").write_text(json.dumps(waiting))
    assert "is not a release version" in shop.refused("sign stick --keys keys")


@pytest.mark.parametrize("place", ["stick", "repo"])
@pytest.mark.parametrize("way", ["--json", "variable", "file"])
def test_what_is_signed_is_shown_where_scripts_read_the_result_too(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, way: str, place: str
) -> None:
    online = shop.hand_over("online", "snapshot", "timestamp")
    signer = shop.hand_over("signer", "release")
    shop.add("1.1", more=online)
    shop.run("sign repo --export stick")
    if way == "variable":
        monkeypatch.setenv("PHASE_JSON", "1")
    elif way == "file":
        Path("phase.toml").write_text("json = true\n")
        monkeypatch.setenv("PHASE_CONFIG", "phase.toml")
    more = online if place == "repo" else ""
    done = shop.invoke(f"sign {place} {signer} {more} {'--json' if way == '--json' else ''}")
    assert done.exit_code == 0, done.output
    json.loads(done.stdout)
    assert "release 1.1 of stable for x86_64" in done.stderr
    assert "in place of 1.0" in done.stderr
    if place == "stick":
        assert "these keys have not signed for this repository before" in done.stderr


@pytest.mark.parametrize("paths", [["*"], ["stable/x86_64/*", "testing/x86_64/*"], ["stable/*/*"]])
def test_a_prepared_stick_gives_no_role_more_than_its_release(shop: Shop, paths: list[str]) -> None:
    online = shop.hand_over("online", "snapshot", "timestamp")
    shop.add("1.0", "beta", online)
    shop.run("sign repo --export stick")
    waiting = json.loads(Path("stick/targets.json").read_bytes())
    waiting["signed"]["delegations"]["roles"][0]["paths"] = paths
    Path("stick/targets.json").write_text(json.dumps(waiting))
    assert "sign more than its own release" in shop.refused("sign stick --keys keys")


def test_a_prepared_stick_of_another_repository_is_not_signed(shop: Shop) -> None:
    Path("strange").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir("strange")
        strange = Shop()
        strange.add("6.6.6", more=strange.hand_over("online", "snapshot", "timestamp"))
        strange.run("sign repo --export stick")
    assert "have signed for another repository" in shop.refused("sign strange/stick --keys keys")


def test_a_stick_says_what_is_replaced_as_the_keys_have_signed_it(shop: Shop) -> None:
    online = shop.hand_over("online", "snapshot", "timestamp")
    shop.add("1.1", more=online)
    shop.run("sign repo --export stick")
    assert "in place of 1.0, version 1" in shop.run("sign stick --keys keys")
    before = json.loads(Path("stick/published/stable-x86_64.json").read_bytes())
    before["signed"]["x-phase"]["release"] = "0.9"
    Path("stick/published/stable-x86_64.json").write_text(json.dumps(before))
    assert "not signed by the keys that were there before" in shop.refused("sign stick --keys keys")


def test_what_waits_is_what_was_shown(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changed between showing and signing, it is not signed."""
    from phase.cli import _signing

    online = shop.hand_over("online", "snapshot", "timestamp")
    shop.add("1.1", more=online)
    load = _signing.load

    def changing(*arguments: object) -> object:
        document = json.loads(Path("repo/staged/stable-x86_64.json").read_bytes())
        document["signed"]["x-phase"]["cmdline"] = "init=/bin/sh"
        Path("repo/staged/stable-x86_64.json").write_text(json.dumps(document))
        return load(*arguments)  # type: ignore[arg-type]  # as it was called

    monkeypatch.setattr(_signing, "load", changing)
    done = shop.invoke("sign repo --keys keys")
    assert "has changed since it was shown" in str(done.exception)
    assert shop.boots() == "1.0"


def test_a_repository_that_is_taken_away_is_not_begun_again(shop: Shop) -> None:
    """The first root and an older state, put there to wait, would be published as the first."""
    Path("repo/staged").mkdir()
    shutil.copy("repo/metadata/1.root.json", "repo/staged/root.json")
    shutil.copy("repo/metadata/1.targets.json", "repo/staged/targets.json")
    known = Path("keys/pinned.json").read_bytes()
    shutil.rmtree("repo/metadata")
    for command in COMMANDS[3:5]:
        assert "is gone" in shop.refused(command)
    assert Path("keys/pinned.json").read_bytes() == known


def test_what_somebody_puts_there_to_wait_is_in_nobodys_way(shop: Shop) -> None:
    Path("repo/staged").mkdir()
    for name in ("stable", "other"):
        shutil.copy("repo/metadata/1.testing-x86_64.json", f"repo/staged/{name}-arm64.json")
    shop.add("1.1")
    for command in ("show repo", "status repo", "sign repo --keys keys", "renew repo targets --keys keys"):
        assert "other-arm64" not in shop.run(command)
    assert shop.boots() == "1.1"


def test_a_wrong_signature_keeps_no_right_one_out(shop: Shop) -> None:
    """Under the right key's name: where it waits, and on the stick."""
    shop.add("1.1", more=shop.hand_over("online", "snapshot", "timestamp"))
    shop.run("sign repo --export stick")
    keyid = shop.keys["release"][0].public_key.keyid
    for path in (Path("repo/staged/stable-x86_64.json"), Path("stick/stable-x86_64.json")):
        document = json.loads(path.read_bytes())
        document["signatures"] = [{"keyid": keyid, "sig": "00" * 64}]
        path.write_text(json.dumps(document))
    shop.run("sign stick --keys keys")
    assert "published in repo" in shop.run("sign repo --import stick --keys online")
    assert shop.boots() == "1.1"


def test_a_stick_whose_versions_do_not_follow_is_not_signed(shop: Shop) -> None:
    shop.run("rotate repo --yes --keys keys")
    shop.run("renew repo root --stage --keys keys")
    shop.run("sign repo --export stick")
    shop.run("sign stick --keys keys")
    first = Path("stick/published/1.root.json")
    second = Path("stick/published/2.root.json")
    kept = second.read_bytes()
    second.unlink()
    assert "version 3 to be signed, and version 1 as published" in shop.refused("sign stick --keys keys")
    second.write_bytes(first.read_bytes())
    assert "is root version 1" in shop.refused("sign stick --keys keys")
    second.write_bytes(kept)
    shop.run("sign stick --keys keys")


def test_a_stick_whose_newer_roots_are_cut_is_not_signed(shop: Shop) -> None:
    """A stolen key that a later root replaced would count again."""
    for _ in range(2):
        shop.run("rotate repo --yes --keys keys")
    shop.run("renew repo root --stage --keys keys")
    shop.run("sign repo --export stick")
    shop.run("sign stick --keys keys")
    Path("stick/published/3.root.json").unlink()
    Path("stick/root.json").write_bytes(Path("repo/metadata/3.root.json").read_bytes())
    before = Path("stick/root.json").read_bytes()
    refused = shop.refused("sign stick --keys keys")
    assert "shows root version 2 as published, and these keys have signed version 4" in refused
    assert Path("stick/root.json").read_bytes() == before


def test_a_root_that_was_signed_and_waits_elsewhere_holds_no_other_round_up(shop: Shop) -> None:
    shop.run("rotate repo --yes --keys keys")
    shop.run("renew repo root --stage --keys keys")
    shop.run("sign repo --export stick")
    shop.run("sign stick --keys keys")
    shop.run("discard repo --yes")
    shop.add("1.1", more=shop.hand_over("online", "snapshot", "timestamp"))
    shop.run("sign repo --export stick")
    assert "signed stable-x86_64" in shop.run("sign stick --keys keys")


def test_a_round_of_too_many_bytes_is_not_read(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.add("1.1", more=shop.hand_over("online", "snapshot", "timestamp"))
    shop.run("sign repo --export stick")
    sizes = [path.stat().st_size for path in Path("stick").glob("*.json")]
    monkeypatch.setattr("phase.release.staging._MAX_TOTAL", sum(sizes) - 1)
    assert "to be signed" in shop.refused("sign stick --keys keys")
    monkeypatch.setattr("phase.release.staging._MAX_TOTAL", sum(sizes))
    shop.run("sign stick --keys keys")


def test_signatures_that_are_lost_are_told_of(shop: Shop) -> None:
    """And that a change waits for `sign`, though all keys are at hand."""
    online = shop.hand_over("online", "snapshot", "timestamp", "targets")
    shop.add("1.0", "one", online)
    said = shop.add("1.0", "two")
    assert "targets waited with signatures; it has changed" in said
    assert "targets waited before: `phase release sign` shows what is in it" in said
    shop.run("sign repo --keys keys")
    assert (shop.boots("one"), shop.boots("two")) == ("1.0", "1.0")


def test_revoke_takes_no_key_that_replaces_nothing(shop: Shop) -> None:
    shop.run("key new/timestamp.json --role timestamp --plain")
    lost = shop.keys["root"][0].public_hex
    said = shop.refused(f"revoke repo {lost} --yes --public new/timestamp.pub --keys keys --keys new")
    assert "the key signs root; a key of timestamp replaces nothing" in said


def test_one_directory_of_keys_for_two_repositories(shop: Shop) -> None:
    root = Path("repo/metadata/1.root.json")
    shutil.copy(root, "first.json")
    shop.run("init second --threshold root=1 --keys keys")
    shop.run("refresh second --keys keys")
    assert len(json.loads(Path("keys/pinned.json").read_bytes())) == 2
    for name in ("repo", "second"):
        shop.run(f"refresh {name} --keys keys")
    Path("keys/pinned.json").chmod(0o600)
    Path("keys/pinned.json").write_text("{")
    assert "keys/pinned.json is damaged" in shop.refused("refresh repo --keys keys")


def test_what_others_drafted_gets_nothing_signed_on_the_way(shop: Shop) -> None:
    """Other keys, put there to wait, would make each command sign what is published again for them."""
    shop.run("key evil/targets.json --role targets --plain")
    shop.run("key evil/release.json --role release --plain")
    public = (
        "--public evil/targets.pub --public evil/release.pub --threshold targets=1 --threshold release=1"
    )
    shop.run(f"rotate repo --yes {public} --keys evil")
    shop.run("promote repo testing stable --keys keys")
    ours = {signer.public_key.keyid for role in ("targets", "release") for signer in shop.keys[role]}
    for path in Path("repo/staged").iterdir():
        assert not ours & {each["keyid"] for each in json.loads(path.read_bytes())["signatures"]}, path
    assert shop.boots() == "1.0"
    shown = shop.run("sign repo --keys evil")  # it is shown what else is signed
    assert "release 1.0 of stable for x86_64" in shown


def test_what_was_signed_and_given_up_is_below_what_comes_next(shop: Shop) -> None:
    """A thief of the online keys could publish it."""
    shop.add("1.1-bad", more="--stage --keys keys")
    version = json.loads(Path("repo/staged/stable-x86_64.json").read_bytes())["signed"]["version"]
    shop.run("discard repo --yes")
    shop.add("1.1")
    assert shop.machine().manifest.version > version
    shop.add("1.2", more=shop.hand_over("online", "snapshot", "timestamp"))
    shop.run("sign repo --export stick")
    shop.run("sign stick --keys keys")
    version = json.loads(Path("stick/stable-x86_64.json").read_bytes())["signed"]["version"]
    shop.run("discard repo --yes")
    shop.add("1.3")
    assert shop.machine().manifest.version > version


def test_what_waits_keeps_no_stolen_key_in_place(shop: Shop) -> None:
    shop.add("1.1", more=shop.hand_over("online", "snapshot", "timestamp"))
    shop.run("key new/release.json --role release --plain")
    stolen = shop.keys["release"][0].public_hex
    said = shop.run(f"revoke repo {stolen} --yes --public new/release.pub --keys keys --keys new")
    assert "the waiting draft of stable-x86_64 is given up" in said
    facts = json.loads(shop.run("show repo --json"))
    assert facts["roles"]["release"]["keys"] == [Path("new/release.pub").read_text().split()[2]]


def test_a_root_that_is_renewed_holds_nothing_up(shop: Shop) -> None:
    some = shop.hand_over("some", "targets", "release", "snapshot", "timestamp")
    shop.run(f"renew repo root {some}")
    shop.add("1.0", "new", some)
    assert shop.boots("new") == "1.0"
    shop.run("sign repo --keys keys")
    assert shop.machine().floor.root == 2


#: Where somebody may put a link, and what it would do with the keys it leads to.
LINKS = (
    "staged",
    "metadata",
    "publishing",
    "publishing.new",
    "blobs",
    "blobs/sha256",
    "targets",
    "targets/evil",
)


@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize("command", ["refresh repo --keys keys", "prune repo", "discard repo --yes"])
def test_a_link_in_the_repository_leads_nowhere(shop: Shop, name: str, command: str) -> None:
    kept = {path: path.read_bytes() for path in Path("keys").iterdir()}
    Path("keys").chmod(0o700)
    path = Path("repo", name)
    if path.exists():
        path.rename("away")
    if name == "publishing":
        order = [{"path": "staged/root-1.json", "remove": True}, {"path": "metadata/1.root.json"}]
        Path("keys/order.json").write_text(json.dumps(order))
    path.symlink_to(Path("keys").absolute())
    ended = shop.invoke(command)
    assert ended.exit_code == 1 or "nothing waits" in ended.output
    assert {path: path.read_bytes() for path in Path("keys").iterdir() if path.name != "order.json"} == kept
    assert Path("keys").stat().st_mode & 0o777 == 0o700


def test_a_link_on_a_stick_leads_nowhere(shop: Shop) -> None:
    shop.add("1.1", more=shop.hand_over("online", "snapshot", "timestamp"))
    Path("stick").mkdir()
    Path("stick/published").symlink_to(Path("keys").absolute())
    kept = {path: path.read_bytes() for path in Path("keys").iterdir()}
    assert "stick/published is a link" in shop.refused("sign repo --export stick")
    assert {path: path.read_bytes() for path in Path("keys").iterdir()} == kept


@pytest.mark.parametrize("name", ["a.root.json", "root.json", "7.root.json"])
def test_a_link_to_a_key_is_not_exported(shop: Shop, name: str) -> None:
    path = Path("repo/metadata", name)
    path.unlink(missing_ok=True)
    path.symlink_to(Path("keys/root-1.json").absolute())
    shop.invoke("export repo public")
    seed = json.loads(Path("keys/root-1.json").read_bytes())["seed"].encode()
    assert not [each for each in Path("public").rglob("*") if each.is_file() and seed in each.read_bytes()]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["timestamp", "1.root", "1.testing-x86_64", "1.targets"])
def test_a_pipe_in_the_repository_is_not_waited_for(shop: Shop, name: str) -> None:
    path = Path(f"repo/metadata/{name}.json")
    path.unlink()
    os.mkfifo(path)
    for command in (
        "show repo",
        "status repo",
        "verify repo",
        "export repo out",
        "refresh repo --keys keys",
    ):
        assert shop.invoke(command).exit_code in (1, 3) or name == "1.targets", command


def test_a_directory_that_is_no_repository_is_left_alone(shop: Shop) -> None:
    for command in (
        "prune",
        "withdraw {} a x86_64",
        "promote {} a b",
        "renew",
        "restore",
        "refresh",
        "export",
    ):
        words = command.format("nosuch") if "{}" in command else f"{command} nosuch"
        more = " out" if command == "export" else " --keys keys" if command != "prune" else ""
        assert shop.invoke(words + more).exit_code == 1, words
        assert not Path("nosuch").exists(), words


def test_what_is_shown_is_compared_with_what_is_verified(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody shows a published state of his own, and puts the true one back before anything is signed."""
    from phase.cli import _signing

    shop.add("1.1", more=shop.hand_over("online", "snapshot", "timestamp"))
    true = Path("repo/metadata/1.stable-x86_64.json").read_bytes()
    change("repo/metadata/1.stable-x86_64.json", expires="2031-01-01T00:00:00Z")
    load = _signing.load

    def putting_back(*arguments: object) -> object:
        Path("repo/metadata/1.stable-x86_64.json").write_bytes(true)
        return load(*arguments)  # type: ignore[arg-type]  # as it was called

    monkeypatch.setattr(_signing, "load", putting_back)
    assert "changed by somebody without the keys" in str(shop.invoke("sign repo --keys keys").exception)


def test_days_are_a_number(shop: Shop) -> None:
    assert (
        shop.invoke("add repo stable x86_64 --kernel kernel --release 2 --days nan --keys keys").exit_code
        == 2
    )
