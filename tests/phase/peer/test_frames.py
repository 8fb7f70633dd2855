import pytest
from blake3 import blake3

from phase.identity import Identity
from phase.peer import frames
from phase.peer.frames import MAX_CONTENT, PROTOCOLS, FrameError, Status, Type

TO = bytes(range(32))


def test_datagrams_are_sent_on_with_their_source() -> None:
    found = frames.read(bytes([Type.DATAGRAM_IN]) + TO + b"\x02data")
    assert found == frames.Datagrams(Type.DATAGRAM_IN, TO, b"\x02data")
    assert frames.passed_on(Type.DATAGRAM_IN, b"s" * 32) == bytes([Type.DATAGRAM_OUT]) + b"s" * 32
    assert frames.passed_on(Type.DATAGRAMS_IN, b"s" * 32) == bytes([Type.DATAGRAMS_OUT]) + b"s" * 32


@pytest.mark.parametrize("size", [0, 1, MAX_CONTENT, MAX_CONTENT + 1])
def test_size_of_a_frame_is_bounded(size: int) -> None:
    frame = (bytes([Type.DATAGRAM_IN]) + bytes(size))[: size + 1 if size else 0]
    if size == MAX_CONTENT:
        frames.read(frame)
    else:
        with pytest.raises(FrameError):
            frames.read(frame)


def test_what_is_signed_is_bound_to_its_use() -> None:
    """As iroh's endpoints do it; a real one is let in by it in test_relay.py."""
    random = bytes(16)
    context = "iroh-relay handshake v1 challenge signature"
    assert frames.signed(random) == blake3(random, derive_key_context=context).digest()
    assert frames.signed(random) != blake3(random).digest()


def test_proof_is_of_one_challenge_and_one_key() -> None:
    node, other = Identity.ephemeral(), Identity.ephemeral()
    key = bytes.fromhex(node.public_key)

    def answer(who: Identity, random: bytes) -> bytes:
        return bytes([Type.AUTHENTICATION]) + key + b"\x40" + who.sign(frames.signed(random))

    assert frames.prover(answer(node, b"r" * 16), b"r" * 16) == key
    for wrong in (answer(other, b"r" * 16), answer(node, b"x" * 16)):
        with pytest.raises(FrameError, match="signature invalid"):
            frames.prover(wrong, b"r" * 16)


def test_words_of_a_relay() -> None:
    assert frames.denial("no") == b"\x03\x02no"
    assert frames.status(Status.SAME_KEY, PROTOCOLS[0]) == b"\x0d\x01"
    assert frames.status(Status.HEALTHY, PROTOCOLS[1]) == b"\x0b"
    assert frames.gone(TO) == b"\x08" + TO
