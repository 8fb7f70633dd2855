"""A refresh believes what was signed and nothing else, however the provider lies."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phase import trust
from phase.release.keys import ReleaseKeys

Publisher = Any  # the class is the fixtures' own
Later = Callable[[float], datetime]


def test_a_true_release_is_believed(publisher: Publisher) -> None:
    found = publisher.refresh()
    manifest = found.manifest
    assert (manifest.channel, manifest.arch, manifest.version) == ("stable", "x86_64", 1)
    assert (manifest.release, manifest.cmdline) == ("1.0.0", "quiet")
    assert sorted(manifest.artifacts) == ["initramfs", "kernel"]
    assert manifest.artifacts["kernel"].length == (1 << 20) + 1
    assert len(manifest.artifacts["kernel"].chunks) > 1


def test_files_are_asked_for_in_the_workflows_order_and_bounded(publisher: Publisher) -> None:
    publisher.refresh()
    sizes = {name: len(data) for name, data in publisher.files.items()}
    assert publisher.asked == [
        ("2.root.json", 512_000),
        ("timestamp.json", 16_384),
        ("1.snapshot.json", sizes["1.snapshot.json"]),
        ("1.targets.json", sizes["1.targets.json"]),
        ("1.stable-x86_64.json", sizes["1.stable-x86_64.json"]),
    ]


def test_what_it_returns_is_enough_to_verify_again(publisher: Publisher) -> None:
    found = publisher.refresh()
    assert "1.stable-arm64.json" not in found.metadata
    publisher.files = dict(found.metadata)
    assert publisher.refresh().manifest == found.manifest


def test_another_publishers_release_is_refused(publisher: Publisher, tmp_path_factory: Any) -> None:
    stranger = type(publisher)(tmp_path_factory.mktemp("stranger"), ReleaseKeys.from_seed("stranger"))
    with pytest.raises(trust.SignatureError, match=r"timestamp.json is signed by 0 of the role's 1 keys"):
        stranger.refresh(root=publisher.root)


def test_a_changed_file_with_its_old_signature_is_refused(publisher: Publisher) -> None:
    name = "timestamp.json"  # the one file that nothing pins by hash
    publisher.files[name] = publisher.files[name].replace(b'"version":1}', b'"version":2}')
    with pytest.raises(trust.SignatureError, match=r"timestamp.json is signed by 0 of the role's 1 keys"):
        publisher.refresh()


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "stable-x86_64"])
def test_a_file_nobody_signed_is_refused(publisher: Publisher, role: str) -> None:
    publisher.forge(role, lambda signed: None, signers=[])
    with pytest.raises(trust.SignatureError, match="is signed by 0"):
        publisher.refresh()


@pytest.mark.parametrize(
    ("role", "days"),
    [("timestamp", 7), ("snapshot", 30), ("targets", 365), ("stable-x86_64", 180), ("root", 730)],
)
def test_what_has_expired_is_refused(publisher: Publisher, later: Later, role: str, days: float) -> None:
    for other in ("timestamp", "snapshot", "targets", "stable-x86_64"):
        if other != role:
            publisher.forge(other, lambda signed: signed.update(expires="2040-01-01T00:00:00Z"))
    publisher.refresh(now=later(days - 0.001))
    with pytest.raises(trust.ExpiredError, match=f"{role}.* expired at 20"):
        publisher.refresh(now=later(days))


@pytest.mark.parametrize(("role", "days"), [("timestamp", 7), ("snapshot", 30)])
def test_a_grace_takes_what_nobody_could_renew(
    publisher: Publisher, later: Later, role: str, days: float
) -> None:
    for other in ("timestamp", "snapshot"):
        if other != role:
            publisher.forge(other, lambda signed: signed.update(expires="2040-01-01T00:00:00Z"))
    policy = trust.Policy(grace=2 * 86_400)
    assert publisher.refresh(now=later(days - 0.001), policy=policy).overdue == ()
    (name,) = publisher.refresh(now=later(days + 1.999), policy=policy).overdue
    assert name.endswith(f"{role}.json")
    with pytest.raises(trust.ExpiredError, match=f"{role}.* expired at 20"):
        publisher.refresh(now=later(days + 2), policy=policy)


@pytest.mark.parametrize(("role", "days"), [("targets", 365), ("stable-x86_64", 180), ("root", 730)])
def test_no_grace_for_what_is_signed_offline(
    publisher: Publisher, later: Later, role: str, days: float
) -> None:
    for other in ("timestamp", "snapshot", "targets", "stable-x86_64"):
        if other != role:
            publisher.forge(other, lambda signed: signed.update(expires="2040-01-01T00:00:00Z"))
    with pytest.raises(trust.ExpiredError, match=f"{role}.* expired at 20"):
        publisher.refresh(now=later(days), policy=trust.Policy(grace=1000 * 86_400))


def test_an_expired_root_still_leads_to_the_next(publisher: Publisher, later: Later) -> None:
    publisher.repository = type(publisher.repository).open(
        publisher.directory / "r", keys=publisher.keys, now=later(1000)
    )
    publisher.repository.renew()
    publisher.publish()
    assert publisher.refresh(now=later(1000)).floor.root == 2


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "stable-x86_64"])
def test_an_older_version_than_before_is_refused(publisher: Publisher, role: str) -> None:
    old = dict(publisher.files)
    publisher.add("x86_64", "1.0.1")
    publisher.repository.renew(["targets"])
    publisher.publish()
    floor = publisher.refresh().floor
    assert (floor.timestamp, floor.snapshot) == (2, 2)
    assert floor.meta == {"targets.json": 2, "stable-x86_64.json": 2, "stable-arm64.json": 1}
    publisher.files = old | {name: data for name, data in publisher.files.items() if "root" in name}
    # Every role above the one rolled back is newly signed, with versions as high as they must be.
    meta = dict.fromkeys(("targets.json", "stable-x86_64.json"), 2)
    if role in ("targets", "stable-x86_64"):
        versions = {file: {"version": version} for file, version in (meta | {f"{role}.json": 1}).items()}
        publisher.forge(
            "snapshot",
            lambda s: (s.update(version=9), s["meta"].update(versions)),
            name="9.snapshot.json",
            repin=False,
        )
    if role != "timestamp":
        pin = {"version": 1 if role == "snapshot" else 9}
        publisher.forge("timestamp", lambda s: s.update(version=9, meta={"snapshot.json": pin}))
    what = {
        "timestamp": "timestamp.json",
        "snapshot": "the snapshot in timestamp.json",
    }.get(role, f"{role}.json in 9.snapshot.json")
    with pytest.raises(trust.RollbackError, match=f"^{what} has version 1; version 2 was trusted before"):
        publisher.refresh(floor=floor)


def test_a_snapshot_that_forgets_a_role_is_refused(publisher: Publisher) -> None:
    floor = publisher.refresh().floor
    publisher.forge("snapshot", lambda signed: signed["meta"].pop("stable-arm64.json"))
    with pytest.raises(trust.RollbackError, match=r"no longer names stable-arm64.json"):
        publisher.refresh(floor=floor)


def test_hiding_a_newer_root_is_refused(publisher: Publisher) -> None:
    old = dict(publisher.files)
    publisher.repository.rotate(publisher.keys)
    publisher.publish()
    floor = publisher.refresh().floor
    publisher.files = old
    with pytest.raises(trust.RollbackError, match="newest root offered is version 1; version 2"):
        publisher.refresh(floor=floor)


def test_rotated_keys_recover_from_a_fast_forward(publisher: Publisher) -> None:
    true = dict(publisher.files)
    # A thief of both online keys pushes the versions to the top.
    top = 10**12
    publisher.forge("snapshot", lambda s: s.update(version=top), name=f"{top}.snapshot.json", repin=False)
    publisher.forge(
        "timestamp",
        lambda s: s.update(version=top, meta={"snapshot.json": {"version": top}}),
    )
    poisoned = publisher.refresh().floor
    assert (poisoned.timestamp, poisoned.snapshot) == (top, top)
    publisher.files = true
    with pytest.raises(trust.RollbackError):
        publisher.refresh(floor=poisoned)
    fresh = ReleaseKeys.generate()
    publisher.repository.rotate(publisher.keys.but(timestamp=fresh["timestamp"], snapshot=fresh["snapshot"]))
    publisher.publish()
    assert publisher.refresh(floor=poisoned).floor.timestamp == 2


def test_parts_of_two_releases_do_not_mix(publisher: Publisher) -> None:
    publisher.forge("stable-x86_64", lambda s: s["x-phase"].update(cmdline="evil"), repin=False)
    with pytest.raises(trust.TrustError, match=r"stable-x86_64"):
        publisher.refresh()


def test_the_same_length_with_other_bytes_is_named_by_hash(publisher: Publisher) -> None:
    name = publisher.current("stable-x86_64")
    publisher.files[name] = publisher.files[name].replace(b"quiet", b"Quiet")
    with pytest.raises(trust.PinError, match=r"has SHA-256 [0-9a-f]{64}, expected [0-9a-f]{64}"):
        publisher.refresh()


def test_a_version_other_than_pinned_is_refused(publisher: Publisher) -> None:
    publisher.forge("targets", lambda s: s.update(version=7), name="1.targets.json")
    with pytest.raises(trust.PinError, match="says version 7, expected 1"):
        publisher.refresh()


@pytest.mark.parametrize(
    ("name", "limit"), [("2.root.json", 512_000), ("timestamp.json", 16_384), ("1.snapshot.json", 0)]
)
def test_too_long_a_file_is_refused(publisher: Publisher, name: str, limit: int) -> None:
    publisher.files[name] = publisher.files.get(name, b"") + b" " * (limit + 1)
    with pytest.raises(trust.SizeError):
        publisher.refresh()


def test_without_a_signed_length_the_role_s_cap_holds(publisher: Publisher) -> None:
    publisher.forge("timestamp", lambda s: s["meta"].update({"snapshot.json": {"version": 1}}))
    publisher.files["1.snapshot.json"] += b" " * 2_000_000
    with pytest.raises(trust.SizeError, match="2000000"):
        publisher.refresh()


def test_a_length_alone_is_held_too(publisher: Publisher) -> None:
    length = len(publisher.files["1.snapshot.json"])
    for signed in (length, length + 1):
        pin = {"version": 1, "length": signed}
        publisher.forge("timestamp", lambda s, pin=pin: s["meta"].update({"snapshot.json": pin}))
        if signed == length:
            publisher.refresh()
    with pytest.raises(trust.SizeError, match=f"has {length} bytes, signed for {length + 1}"):
        publisher.refresh()


def test_a_hash_that_cannot_be_checked_holds_nothing(publisher: Publisher) -> None:
    pin = {"version": 1, "hashes": {"md5": "00"}}
    publisher.forge("timestamp", lambda s: s["meta"].update({"snapshot.json": pin}))
    with pytest.raises(trust.TrustError, match="not by sha256"):
        publisher.refresh()


def test_endless_roots_end(publisher: Publisher) -> None:
    for _ in range(3):
        publisher.repository.rotate(publisher.keys)
        publisher.publish()
    found = publisher.refresh(policy=trust.Policy(max_rotations=2))
    assert found.floor.root == 3
    assert publisher.refresh().floor.root == 4


def test_another_channel_is_refused_by_name(publisher: Publisher) -> None:
    with pytest.raises(trust.WrongTargetError, match=r"no release of beta-x86_64; it has stable-arm64"):
        publisher.refresh(channel="beta")
    with pytest.raises(trust.WrongTargetError, match="not a channel name"):
        publisher.refresh(channel="../stable")


def test_a_manifest_of_another_architecture_in_the_right_place_is_refused(publisher: Publisher) -> None:
    arm = publisher.signed("stable-arm64")
    publisher.forge("stable-x86_64", lambda s: s.update(arm))
    with pytest.raises(trust.WrongTargetError, match="arch 'arm64', expected 'x86_64'"):
        publisher.refresh()


def test_a_role_beside_its_delegated_paths_is_refused(publisher: Publisher) -> None:
    publisher.forge("targets", lambda s: s["delegations"]["roles"][1].update(paths=["stable/other/*"]))
    assert publisher.signed("targets")["delegations"]["roles"][1]["name"] == "stable-arm64"
    with pytest.raises(trust.WrongTargetError, match="delegated to no role"):
        publisher.refresh(arch="arm64")


def test_a_role_another_one_comes_before_is_refused(publisher: Publisher) -> None:
    def before(signed: dict[str, Any]) -> None:
        roles = signed["delegations"]["roles"]
        roles.insert(0, roles[0] | {"name": "catch-all", "paths": ["*/*/*"]})

    publisher.forge("targets", before)
    with pytest.raises(trust.WrongTargetError, match="delegated to catch-all"):
        publisher.refresh()


def test_what_get_raises_passes_unless_it_means_missing(publisher: Publisher) -> None:
    def get(name: str, max_bytes: int) -> bytes:
        if name == "2.root.json":
            raise KeyError(name)
        found: bytes = publisher.get(name, max_bytes)
        return found

    with pytest.raises(KeyError):
        trust.refresh(publisher.root, get, channel="stable", arch="x86_64", now=datetime.max)
    with pytest.raises(TypeError):  # past the root: a naive time was given
        trust.refresh(
            publisher.root, get, channel="stable", arch="x86_64", now=datetime.max, missing=KeyError
        )


def test_cached_metadata_is_not_asked_for_again(publisher: Publisher) -> None:
    first = publisher.refresh()
    publisher.asked.clear()
    assert publisher.refresh(cached=first.metadata, floor=first.floor).manifest == first.manifest
    assert [name for name, _ in publisher.asked] == ["2.root.json", "timestamp.json"]


def test_damaged_cached_metadata_is_asked_for_anew(publisher: Publisher) -> None:
    first = publisher.refresh()
    damaged = dict(first.metadata) | {"1.stable-x86_64.json": b"{}"}
    found = publisher.refresh(cached=damaged)
    assert found.manifest == first.manifest
    assert found.metadata["1.stable-x86_64.json"] == first.metadata["1.stable-x86_64.json"]


@pytest.mark.parametrize("torn", [b"", b"{}", b" " * 600_000], ids=["empty", "other", "long"])
def test_a_damaged_cached_root_is_asked_for_anew(publisher: Publisher, torn: bytes) -> None:
    for _ in range(2):
        publisher.repository.rotate(publisher.keys)
        publisher.publish()
    first = publisher.refresh()
    publisher.asked.clear()
    found = publisher.refresh(cached=dict(first.metadata) | {"2.root.json": torn}, floor=first.floor)
    assert found.metadata == first.metadata
    # The one after it is still taken from the cache.
    assert [name for name, _ in publisher.asked] == ["2.root.json", "4.root.json", "timestamp.json"]


def test_a_cached_root_that_nobody_offers_is_none(publisher: Publisher) -> None:
    found = publisher.refresh(cached={"2.root.json": b"{"})
    assert (found.floor.root, "2.root.json" in found.metadata) == (1, False)


def test_a_root_that_providers_forge_too_is_refused(publisher: Publisher) -> None:
    publisher.files["2.root.json"] = b"{}"
    with pytest.raises(trust.FormatError):
        publisher.refresh(cached={"2.root.json": b"{"})


def test_a_cached_role_is_verified_against_the_delegator_of_now(publisher: Publisher) -> None:
    """As the conformance suite's test_cached_role_is_verified_against_current_delegator."""
    first = publisher.refresh()
    stranger = ReleaseKeys.from_seed("stranger")["release"][0].public_key

    def replace(signed: dict[str, Any]) -> None:
        signed["delegations"]["keys"] = {stranger.keyid: stranger.to_dict()}
        for role in signed["delegations"]["roles"]:
            role["keyids"] = [stranger.keyid]
        signed["version"] = 2

    publisher.forge("targets", replace, name="2.targets.json")
    publisher.forge("snapshot", lambda s: s["meta"]["targets.json"].update(version=2))
    with pytest.raises(trust.SignatureError, match=r"1.stable-x86_64.json is signed by 0"):
        publisher.refresh(cached=first.metadata, floor=first.floor)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.data())
def test_no_changed_byte_is_believed(publisher: Publisher, data: st.DataObject) -> None:
    true = publisher.refresh()
    names = ["timestamp.json", "1.snapshot.json", "1.targets.json", "1.stable-x86_64.json"]
    name = data.draw(st.sampled_from(names))
    original = publisher.files[name]
    place = data.draw(st.integers(0, len(original) - 1))
    changed = bytearray(original)
    changed[place] ^= data.draw(st.integers(1, 255))
    publisher.files[name] = bytes(changed)
    try:
        found = publisher.refresh()
    except trust.TrustError:
        pass
    else:
        assert found.manifest == true.manifest  # an unsigned byte of the timestamp, such as a space
        assert name == "timestamp.json"
    finally:
        publisher.files[name] = original


def test_no_place_lowers_what_another_remembers(publisher: Publisher, later: Later) -> None:
    """A disk that claims more, by keys that are not the role's, must not stand for the firmware."""
    old = dict(publisher.files)
    publisher.add("x86_64", "1.0.1")
    publisher.publish()
    honest = publisher.refresh(now=later(2)).floor
    publisher.files = old
    liar = trust.Floor(root=1, timestamp=10**9, snapshot=10**9, keys={"timestamp": ["00"], "snapshot": []})
    for floors in ([honest, liar], [liar, honest]):
        with pytest.raises(trust.RollbackError, match="version 2 was trusted before"):
            publisher.refresh(others=floors)
    # What a disk says by the right keys only adds to it; no key vouches for the time.
    ours = honest._replace(timestamp=1, snapshot=1, meta={"stable-x86_64.json": 1}, time=7)
    theirs = honest._replace(timestamp=1, meta={"targets.json": 1})
    found = publisher.refresh(others=[ours, theirs._replace(snapshot=1)])
    assert found.floor.timestamp == 1
    assert found.floor.time == int(later(0).timestamp())
    with pytest.raises(trust.RollbackError, match="the snapshot in timestamp"):
        publisher.refresh(others=[ours, theirs])
