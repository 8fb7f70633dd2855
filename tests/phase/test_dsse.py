"""Envelopes: exact bytes, unique keys, and nothing unauthenticated decides."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phase import dsse
from phase.identity import Identity

TYPE = "application/vnd.phase.test+json"
ALICE, BOB, EVE = (Identity.from_seed(bytes([n]) * 32) for n in (1, 2, 3))


def test_the_encoding_is_that_of_the_specification() -> None:
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert dsse.pae("http://example.com/HelloWorld", b"hello world") == expected


@given(st.binary(max_size=300))
def test_what_is_signed_comes_out_again(body: bytes) -> None:
    envelope = dsse.sign(TYPE, body, [ALICE])
    assert dsse.verify(envelope, keys=[ALICE.public_key], payload_type=TYPE) == body


@given(st.data())
def test_no_changed_byte_goes_unnoticed(data: st.DataObject) -> None:
    envelope = bytearray(dsse.sign(TYPE, b'{"a":1}', [ALICE]))
    place = data.draw(st.integers(0, len(envelope) - 1))
    envelope[place] ^= data.draw(st.integers(1, 255))
    try:
        body = dsse.verify(bytes(envelope), keys=[ALICE.public_key], payload_type=TYPE)
    except dsse.DsseError:
        return
    assert body == b'{"a":1}'  # only what decides nothing was changed: the key id


def change(envelope: bytes, **fields: Any) -> bytes:
    return json.dumps(json.loads(envelope) | fields).encode()


def signatures(envelope: bytes) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(envelope)["signatures"]
    return found


def test_both_base64_alphabets_are_read_padded_or_not() -> None:
    envelope = dsse.sign(TYPE, b"\xfb\xff\xfe\xff", [ALICE])
    sig = base64.urlsafe_b64encode(base64.b64decode(signatures(envelope)[0]["sig"])).decode().rstrip("=")
    other = change(envelope, payload="-__-_w", signatures=[{"sig": sig}])
    assert dsse.verify(other, keys=[ALICE.public_key], payload_type=TYPE) == b"\xfb\xff\xfe\xff"


def test_the_key_id_decides_nothing() -> None:
    envelope = dsse.sign(TYPE, b"x", [ALICE])
    lied = change(envelope, signatures=[{**signatures(envelope)[0], "keyid": EVE.public_key}])
    assert dsse.verify(lied, keys=[ALICE.public_key], payload_type=TYPE) == b"x"
    with pytest.raises(dsse.DsseSignatureError):
        dsse.verify(lied, keys=[EVE.public_key], payload_type=TYPE)


def test_one_key_that_signs_twice_counts_once() -> None:
    envelope = dsse.sign(TYPE, b"x", [ALICE, ALICE])
    keys = [ALICE.public_key, ALICE.public_key.upper(), BOB.public_key]
    with pytest.raises(dsse.DsseSignatureError, match="1 of 2 accepted keys have signed, 2 must"):
        dsse.verify(envelope, keys=keys, threshold=2, payload_type=TYPE)
    both = dsse.sign(TYPE, b"x", [ALICE, BOB])
    assert dsse.verify(both, keys=keys, threshold=2, payload_type=TYPE) == b"x"


def test_a_mapping_of_keys_is_taken_by_its_keys() -> None:
    envelope = dsse.sign(TYPE, b"x", [BOB])
    assert dsse.verify(envelope, keys={BOB.public_key: "bob"}, payload_type=TYPE) == b"x"


def test_another_type_is_refused_even_if_signed() -> None:
    with pytest.raises(dsse.DsseFormatError, match="expected 'a/b'"):
        dsse.verify(dsse.sign(TYPE, b"x", [ALICE]), keys=[ALICE.public_key], payload_type="a/b")


def test_a_type_that_was_exchanged_breaks_the_signature() -> None:
    envelope = change(dsse.sign(TYPE, b"x", [ALICE]), payloadType="a/b")
    with pytest.raises(dsse.DsseSignatureError):
        dsse.verify(envelope, keys=[ALICE.public_key], payload_type="a/b")


@pytest.mark.parametrize(
    "envelope",
    [b"", b"{}", b"null", b"[" * 100_000, b'{"payload":1,"payloadType":"a","signatures":[]}', b"\xff"],
)
def test_what_is_no_envelope_is_refused(envelope: bytes) -> None:
    with pytest.raises(dsse.DsseFormatError):
        dsse.verify(envelope, keys=[ALICE.public_key], payload_type=TYPE)


def test_too_much_is_refused_before_it_is_verified() -> None:
    envelope = dsse.sign(TYPE, b"x", [ALICE])
    with pytest.raises(dsse.DsseFormatError, match="17 signatures"):
        dsse.verify(
            change(envelope, signatures=signatures(envelope) * 17),
            keys=[ALICE.public_key],
            payload_type=TYPE,
        )
    with pytest.raises(dsse.DsseFormatError, match="limit"):
        dsse.verify(b" " * (dsse.MAX_ENVELOPE + 1), keys=[ALICE.public_key], payload_type=TYPE)
    with pytest.raises(dsse.DsseError, match="limit"):
        dsse.sign(TYPE, bytes(dsse.MAX_ENVELOPE), [ALICE])


@pytest.mark.parametrize("threshold", [0, -1])
def test_a_threshold_that_accepts_anything_is_a_mistake(threshold: int) -> None:
    with pytest.raises(dsse.DsseError, match="threshold"):
        dsse.verify(dsse.sign(TYPE, b"", [ALICE]), keys=[], threshold=threshold, payload_type=TYPE)


@pytest.mark.parametrize("key", ["", "00", "zz" * 32, "00 " * 32])
def test_a_malformed_key_is_a_mistake_not_a_failure(key: str) -> None:
    with pytest.raises(dsse.DsseError, match="not an Ed25519 public key"):
        dsse.verify(dsse.sign(TYPE, b"", [ALICE]), keys=[key], payload_type=TYPE)


def test_nobody_signs_nothing() -> None:
    with pytest.raises(dsse.DsseError, match="1 to 16"):
        dsse.sign(TYPE, b"", [])


def test_the_keys_that_an_envelope_claims_are_those_that_signed_it() -> None:
    assert dsse.claimed_keys(dsse.sign(TYPE, b"x", [ALICE, BOB])) == (ALICE.public_key, BOB.public_key)


def test_sixteen_signatures_and_sixty_four_keys_are_taken_and_no_more() -> None:
    people = [Identity.from_seed(bytes([n]) * 32) for n in range(1, dsse.MAX_KEYS + 2)]
    keys = [each.public_key for each in people]
    envelope = dsse.sign(TYPE, b"x", people[: dsse.MAX_SIGNATURES])
    assert dsse.verify(envelope, keys=keys[:-1], threshold=dsse.MAX_SIGNATURES, payload_type=TYPE) == b"x"
    with pytest.raises(dsse.DsseError, match="1 to 16 signatures, not 17"):
        dsse.sign(TYPE, b"x", people[: dsse.MAX_SIGNATURES + 1])
    with pytest.raises(dsse.DsseError, match="65 keys; the limit is 64"):
        dsse.verify(envelope, keys=keys, payload_type=TYPE)


def test_an_envelope_as_large_as_the_limit_is_made_and_read() -> None:
    body = bytes(3 << 19)
    room = dsse.MAX_ENVELOPE - len(dsse.sign("", body, [ALICE]))
    kind = "t" * room
    envelope = dsse.sign(kind, body, [ALICE])
    assert len(envelope) == dsse.MAX_ENVELOPE
    assert dsse.verify(envelope, keys=[ALICE.public_key], payload_type=kind) == body
    with pytest.raises(dsse.DsseError, match="limit"):
        dsse.sign(kind + "t", body, [ALICE])


def test_a_longer_signature_does_not_put_its_end_before_the_message() -> None:
    envelope = dsse.sign(TYPE, b"x", [EVE])
    # Alice has signed something else, whose first byte EVE moves into the signature.
    longer = ALICE.sign(b"!" + dsse.pae(TYPE, b"x")) + b"!"
    forged = change(envelope, signatures=[{"sig": base64.b64encode(longer).decode()}])
    with pytest.raises(dsse.DsseSignatureError):
        dsse.verify(forged, keys=[ALICE.public_key], payload_type=TYPE)


@pytest.mark.parametrize("garbage", ["!", " ", "\n", "=eA==", "e"])
def test_what_is_not_base64_is_refused_not_skipped(garbage: str) -> None:
    envelope = dsse.sign(TYPE, b"x", [ALICE])
    with pytest.raises(dsse.DsseFormatError, match="not base64"):
        dsse.verify(
            change(envelope, payload=garbage + json.loads(envelope)["payload"]),
            keys=[ALICE.public_key],
            payload_type=TYPE,
        )


@given(st.binary(max_size=8))
def test_a_body_of_any_length_is_read_unpadded(body: bytes) -> None:
    envelope = dsse.sign(TYPE, body, [ALICE])
    bare = change(envelope, payload=json.loads(envelope)["payload"].rstrip("="))
    assert dsse.verify(bare, keys=[ALICE.public_key], payload_type=TYPE) == body
