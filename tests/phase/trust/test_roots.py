"""The chain of roots, thresholds, and keys that count once."""

import json
from typing import Any

import pytest

from phase import trust
from phase.release.keys import ROLES, ReleaseKeys
from phase.trust import floor

Publisher = Any
Sign = Any


def forge_root(
    publisher: Publisher, sign: Sign, change: Any, signers: Any, *, name: str = "2.root.json"
) -> None:
    signed = json.loads(publisher.root)["signed"]
    signed["version"] = 2
    change(signed)
    publisher.files[name] = sign(signed, signers)


def test_the_root_must_be_signed_by_itself(publisher: Publisher, sign: Sign) -> None:
    one = publisher.keys["root"][:1]
    with pytest.raises(trust.SignatureError, match="signed by 1 of the role's 3 keys, 2 must"):
        publisher.refresh(root=sign(publisher.signed("root"), one))
    publisher.refresh(root=sign(publisher.signed("root"), publisher.keys["root"][1:]))


def test_a_next_root_needs_the_threshold_of_the_one_before(publisher: Publisher, sign: Sign) -> None:
    fresh = ReleaseKeys.from_seed("fresh")["root"]

    def replace(signed: dict[str, Any]) -> None:
        signed["keys"] |= {s.public_key.keyid: s.public_key.to_dict() for s in fresh}
        signed["roles"]["root"]["keyids"] = [s.public_key.keyid for s in fresh]

    old = publisher.keys["root"]
    for signers, by in [
        ([*fresh], "by the previous root"),
        ([*fresh, old[0]], "by the previous root"),
        ([*old], "by its own keys"),
        ([*old, fresh[0]], "by its own keys"),
    ]:
        forge_root(publisher, sign, replace, signers)
        with pytest.raises(trust.SignatureError, match=by):
            publisher.refresh()
    forge_root(publisher, sign, replace, [*old[:2], *fresh[:2]])
    assert publisher.refresh().floor.root == 2


@pytest.mark.parametrize(("version", "error"), [(1, trust.RollbackError), (3, trust.PinError)])
def test_a_next_root_has_the_next_version(
    publisher: Publisher, sign: Sign, version: int, error: type[Exception]
) -> None:
    forge_root(publisher, sign, lambda s: s.update(version=version), publisher.keys["root"])
    with pytest.raises(error, match=f"2.root.json says version {version}, expected 2"):
        publisher.refresh()


def test_one_key_under_two_ids_counts_once(publisher: Publisher, sign: Sign) -> None:
    signer = publisher.keys["root"][0]
    key = signer.public_key.to_dict()

    def twice(signed: dict[str, Any]) -> None:
        upper = key | {"keyval": {"public": key["keyval"]["public"].upper()}}
        signed["keys"] |= {"a": key, "b": upper}
        signed["roles"]["root"]["keyids"] = [signer.public_key.keyid, "a", "b"]

    forge_root(publisher, sign, twice, publisher.keys["root"][:2])
    document = json.loads(publisher.files["2.root.json"])
    mine = document["signatures"][0]["sig"]
    document["signatures"] += [{"keyid": "a", "sig": mine}, {"keyid": "b", "sig": mine}]
    publisher.files["2.root.json"] = json.dumps(document).encode()
    with pytest.raises(
        trust.SignatureError, match=r"own keys.* is signed by 1 of the role's 1 keys, 2 must"
    ):
        publisher.refresh()


@pytest.mark.parametrize(
    "key",
    [
        {"keytype": "quantum", "scheme": "quantum-1", "keyval": {"public": "x"}},
        {"keytype": "rsa", "scheme": "rsassa-pss-sha256", "keyval": {"public": "-----BEGIN"}},
        {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": "00"}},
        {"keytype": ["list"], "scheme": {}, "keyval": None},
        "no key at all",
    ],
)
def test_a_key_of_an_unknown_kind_is_ignored(publisher: Publisher, sign: Sign, key: Any) -> None:
    def add(signed: dict[str, Any]) -> None:
        signed["keys"]["new"] = key
        signed["roles"]["root"]["keyids"].append("new")
        signed["roles"]["timestamp"]["keyids"].append("new")

    forge_root(publisher, sign, add, publisher.keys["root"])
    assert publisher.refresh().floor.root == 2

    def only(signed: dict[str, Any]) -> None:
        add(signed)
        signed["roles"]["timestamp"]["keyids"] = ["new"]

    forge_root(publisher, sign, only, publisher.keys["root"])
    with pytest.raises(trust.SignatureError, match=r"timestamp.json is signed by 0 of the role's 0 keys"):
        publisher.refresh()


def test_a_root_without_consistent_snapshots_is_refused(publisher: Publisher, sign: Sign) -> None:
    forge_root(publisher, sign, lambda s: s.update(consistent_snapshot=False), publisher.keys["root"])
    with pytest.raises(trust.FormatError, match="consistent"):
        publisher.refresh()


def test_updates_out_of_order_are_a_mistake_of_the_caller(publisher: Publisher, now: Any) -> None:
    state = trust.TrustedState(publisher.root, now=now)
    for call in (lambda: state.update_snapshot(b""), lambda: state.update_targets(b"")):
        with pytest.raises(RuntimeError):
            call()
    with pytest.raises(RuntimeError):
        state.update_delegated("stable-x86_64", b"")
    state.update_timestamp(publisher.files["timestamp.json"])
    with pytest.raises(RuntimeError):
        state.update_root(b"")
    state.update_snapshot(publisher.files["1.snapshot.json"])
    with pytest.raises(RuntimeError):
        state.update_timestamp(b"")
    state.update_targets(publisher.files["1.targets.json"])
    with pytest.raises(RuntimeError):
        state.update_snapshot(b"")


def test_another_publishers_root_is_not_measured_by_ours(
    publisher: Publisher, tmp_path_factory: Any
) -> None:
    """A machine that moves to a younger publisher takes its first root, and forgets nobody's newest."""
    first = dict(publisher.files)
    for _ in range(3):
        publisher.repository.rotate(publisher.keys)
        publisher.publish()
    ours = publisher.refresh().floor
    assert ours.root == 4
    stranger = type(publisher)(tmp_path_factory.mktemp("stranger"), ReleaseKeys.from_seed("stranger"))
    moved = stranger.refresh(floor=ours).floor
    assert moved.root == 1
    assert floor.parse(floor.encode(moved), "") == moved
    # Back again, the provider that withholds what the machine had seen gets nowhere.
    publisher.files = first
    with pytest.raises(trust.RollbackError, match=r"offered is version 1; version 4 was trusted before"):
        publisher.refresh(floor=ours)
    with pytest.raises(trust.RollbackError, match="version 4 was trusted before"):
        publisher.refresh(others=[ours, moved])
    with pytest.raises(trust.RollbackError, match="version 4 was trusted before"):
        publisher.refresh(floor=moved, others=[ours])
    # What an older Phase wrote names nobody, and counts for all.
    with pytest.raises(trust.RollbackError, match="version 4 was trusted before"):
        stranger.refresh(floor=trust.Floor(root=4))


def test_a_publisher_is_known_by_any_key_it_has_had(publisher: Publisher) -> None:
    """Neither new root keys nor an image that is newer, or older, make the floor another publisher's."""
    files = [dict(publisher.files)]
    fresh = ReleaseKeys.from_seed("fresh")
    # First all root keys are new ones, then all the others.
    for names in (("root",), ("timestamp", "snapshot", "targets", "release")):
        publisher.keys = ReleaseKeys(
            {name: (fresh if name in names else publisher.keys)[name] for name in ROLES}
        )
        publisher.repository.rotate(publisher.keys)
        publisher.publish()
        files.append(dict(publisher.files))
    for image in (1, 2, 3):
        publisher.files = files[-1]
        remembered = publisher.refresh(root=files[-1][f"{image}.root.json"]).floor
        assert remembered.root == 3
        for booted in (1, 2):
            for withheld in range(booted, 3):
                if (image, booted, withheld) == (3, 1, 1):
                    continue  # of all that the machine has seen, nothing is in this image: no key, no root
                publisher.files = files[withheld - 1]
                with pytest.raises(trust.RollbackError, match="version 3 was trusted before"):
                    publisher.refresh(root=files[-1][f"{booted}.root.json"], floor=remembered)
