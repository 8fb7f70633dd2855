"""What the state machine decides beyond one refresh: other delegators, and what is remembered half way."""

from typing import Any

import pytest
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import KEY_FOR_TYPE_AND_SCHEME, SSlibKey
from tuf.api.metadata import DelegatedRole, Delegations

from phase import trust
from phase.release.keys import ReleaseKeys
from phase.trust.keys import NaclKey, is_usable

Publisher = Any  # the class is the fixtures' own


def walk(publisher: Publisher, steps: int, **more: Any) -> trust.TrustedState:
    """A state that has taken so many of timestamp, snapshot and targets."""
    state = trust.TrustedState(publisher.root, now=more.pop("now"), **more)
    updates = {
        "timestamp": state.update_timestamp,
        "snapshot": state.update_snapshot,
        "targets": state.update_targets,
    }
    for role, update in list(updates.items())[:steps]:
        update(publisher.files[publisher.current(role)])
    return state


def test_a_role_is_verified_by_whoever_leads_to_it(publisher: Publisher, now: Any) -> None:
    state = walk(publisher, 3, now=now)
    data = publisher.files[publisher.current("stable-x86_64")]
    through = state.update_delegated("stable-x86_64", data)
    other = ReleaseKeys.from_seed("another")["release"][0].public_key
    role = DelegatedRole("stable-x86_64", [other.keyid], 1, False, paths=["*"])
    through.delegations = Delegations({other.keyid: other}, {"stable-x86_64": role})
    with pytest.raises(trust.SignatureError, match="signed by 0 of the role's 1 keys"):
        state.update_delegated("stable-x86_64", data, by=through)
    assert state.update_delegated("stable-x86_64", data).version == 1
    with pytest.raises(trust.WrongTargetError, match="no release of stable-arm64"):
        state.delegation("stable-arm64", by=through)


def test_what_was_trusted_half_way_is_remembered(publisher: Publisher, now: Any) -> None:
    publisher.add("x86_64", "2")
    publisher.publish()
    before = trust.Floor(root=1, timestamp=1, snapshot=1, meta={"targets.json": 1}, time=5)
    floors = [walk(publisher, steps, now=now, floor=before).new_floor() for steps in range(3)]
    assert [(each.timestamp, each.snapshot, dict(each.meta)) for each in floors] == [
        (1, 1, {"targets.json": 1}),
        (2, 2, {"targets.json": 1}),
        (2, 2, {"targets.json": 1, "stable-x86_64.json": 2, "stable-arm64.json": 1}),
    ]
    assert [each.time for each in floors] == [int(now.timestamp())] * 3


def test_a_key_of_a_kind_nobody_verifies_here_counts_for_nothing() -> None:
    assert issubclass(KEY_FOR_TYPE_AND_SCHEME["ecdsa", "ecdsa-sha2-nistp256"], SSlibKey)
    public = ReleaseKeys.from_seed("a")["root"][0].public_key.to_dict()
    assert is_usable("a", public)
    assert public == ReleaseKeys.from_seed("a")["root"][0].public_key.to_dict()
    unusable: list[object] = [
        {**public, "keytype": "ecdsa", "scheme": "ecdsa-sha2-nistp256"},
        {**public, "keytype": ["ed25519"]},
        {**public, "keytype": "rsa"},
        {**public, "scheme": "rsassa-pss-sha256"},
        {**public, "scheme": None},
        {name: public[name] for name in ("keytype", "scheme")},
        {**public, "keyval": None},
        {**public, "keyval": {"public": "00"}},
        {"keyval": public["keyval"]},
        [],
    ]
    for bad in unusable:
        assert not is_usable("a", bad)


def test_recovery_looks_at_the_snapshot_s_key_too(publisher: Publisher, now: Any) -> None:
    """A thief of the snapshot's key alone may have pushed its versions to the highest number there is."""
    found = publisher.refresh()
    assert set(found.floor.keys) == {"timestamp", "snapshot"}
    pushed = found.floor._replace(snapshot=1_000_000, meta=dict.fromkeys(found.floor.meta, 1_000_000))
    with pytest.raises(trust.RollbackError):
        publisher.refresh(floor=pushed)
    for name in ("timestamp", "snapshot"):
        other = {**pushed.keys, name: ["00" * 32]}
        assert publisher.refresh(floor=pushed._replace(keys=other)).manifest.version == 1


def test_a_signature_has_64_bytes_and_no_more() -> None:
    signer = ReleaseKeys.from_seed("a")["root"][0]
    payload = b"payload"
    signature = signer.sign(payload).signature
    key = signer.public_key
    assert key.has_signed(signature, payload)
    # The library takes signature and message as one: what is behind the 64 bytes would be read as message.
    assert not key.has_signed(signature + payload[:3].hex(), payload[3:])
    assert not key.has_signed(signature + "00", payload)
    assert not key.has_signed(signature[:-2], payload)
    odds: tuple[object, ...] = (None, 5, [], b"", "zz" * 64, "é")
    for odd in odds:
        assert not key.has_signed(odd, payload)


def test_other_clients_are_told_of_a_bad_signature_by_these_keys() -> None:
    """python-tuf's own verification calls the key."""
    signer = ReleaseKeys.from_seed("a")["root"][0]
    signed = signer.sign(b"payload")
    signer.public_key.verify_signature(signed, b"payload")
    with pytest.raises(UnverifiedSignatureError, match=signer.public_key.keyid[:16]):
        signer.public_key.verify_signature(signed, b"another")


def test_a_key_keeps_the_fields_that_are_not_known_here() -> None:
    public = ReleaseKeys.from_seed("a")["root"][0].public_key.to_dict()
    assert NaclKey.from_dict("a", {**public, "x-owner": "b"}).to_dict() == {**public, "x-owner": "b"}
