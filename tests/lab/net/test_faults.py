"""Faults, decided without a clock."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import MisuseError
from lab.net.faults import LIMIT, Faults, Lane, Waiting

FRAME = bytes(14) + b"x" * 986


Arriving = list[list[tuple[float, bytes]]]


def through(faults: Faults, count: int = 2000, *, seed: str = "s", gap: float = 0.001) -> Arriving:
    lane = Lane(seed)
    lane.faults = faults
    return [lane.admit(FRAME[:-4] + number.to_bytes(4, "big"), number * gap) for number in range(count)]


def order(arriving: Arriving) -> list[int]:
    flat = sorted((pair for pairs in arriving for pair in pairs), key=lambda pair: pair[0])
    return [int.from_bytes(frame[-4:], "big") for _, frame in flat]


def test_nothing_wrong_changes_nothing() -> None:
    assert all(pairs[0][0] == number * 0.001 for number, pairs in enumerate(through(Faults())))
    lane = Lane("s")
    assert not lane.active
    lane.faults = Faults(loss=1)
    assert lane.active
    assert lane.admit(FRAME, 0) == []


@pytest.mark.parametrize("share", [0.05, 0.3, 1.0])
def test_shares_are_kept(share: float) -> None:
    # Five standard deviations of 2000 throws.
    near = pytest.approx(share, abs=5 * (share * (1 - share) / 2000) ** 0.5)
    assert sum(not pairs for pairs in through(Faults(loss=share))) / 2000 == near
    assert sum(len(pairs) == 2 for pairs in through(Faults(duplicate=share))) / 2000 == near
    bent = [
        pairs[0][1] != FRAME[:-4] + number.to_bytes(4, "big")
        for number, pairs in enumerate(through(Faults(corrupt=share)))
    ]
    assert sum(bent) / 2000 == near
    late = [pairs[0][0] - n * 0.001 > 0.01 for n, pairs in enumerate(through(Faults(reorder=share)))]
    assert sum(late) / 2000 == near


def test_a_seed_repeats_and_another_does_not() -> None:
    faults = Faults(loss=0.3, jitter=0.01, delay=0.01, duplicate=0.1, corrupt=0.1, reorder=0.1)
    assert through(faults) == through(faults)
    assert through(faults) != through(faults, seed="t")


def test_what_is_lost_does_not_depend_on_other_faults() -> None:
    alone = [not pairs for pairs in through(Faults(loss=0.3))]
    assert alone == [not pairs for pairs in through(Faults(loss=0.3, delay=1, corrupt=0.5, duplicate=0.5))]


def test_one_bit_behind_the_header_is_turned() -> None:
    for number, ((_, frame),) in enumerate(through(Faults(corrupt=1), 300)):
        was = FRAME[:-4] + number.to_bytes(4, "big")
        assert frame[:14] == was[:14]
        assert (int.from_bytes(frame, "big") ^ int.from_bytes(was, "big")).bit_count() == 1


def test_delay_and_jitter_stay_in_their_bounds_and_in_order() -> None:
    arriving = through(Faults(delay=0.05, jitter=0.02), gap=0.1)
    took = [pairs[0][0] - number * 0.1 for number, pairs in enumerate(arriving)]
    assert 0.03 <= min(took) < 0.032
    assert 0.068 < max(took) <= 0.07
    assert order(through(Faults(delay=0.05, jitter=0.02))) == list(range(2000))


def test_reordered_frames_are_overtaken() -> None:
    assert order(through(Faults())) == list(range(2000))
    found = order(through(Faults(reorder=0.1, delay=0.01)))
    assert sorted(found) == list(range(2000))
    assert 100 < sum(b < a for a, b in pairwise(found)) < 300


def test_a_rate_holds_and_its_queue_is_bounded() -> None:
    lane = Lane("s")
    lane.faults = Faults(rate=100_000, queue=20_000)
    arrived = [pair for _ in range(100) for pair in lane.admit(FRAME, 5.0)]
    # The burst and the queue, and not a frame more.
    assert len(arrived) == 23
    assert arrived[0][0] == arrived[2][0] == 5.0
    assert arrived[-1][0] == pytest.approx(5.2)
    assert lane.lost == {"queue": 77}
    assert len(lane.admit(FRAME, 5.2)) == 1


def test_only_longer_payloads_are_dropped() -> None:
    lane = Lane("s")
    lane.faults = Faults(mtu=986)
    assert lane.admit(FRAME, 0)
    assert lane.admit(FRAME + b"x", 0) == []
    assert lane.lost == {"mtu": 1}


def test_a_partition_and_a_predicate_lose_frames() -> None:
    lane = Lane("s")
    lane.faults = Faults(partition=True)
    assert lane.admit(FRAME, 0) == []
    lane.faults = Faults()
    lane.drop = lambda frame: frame == FRAME
    assert lane.admit(FRAME, 0) == []
    assert lane.admit(FRAME + b"x", 0)
    assert lane.lost == {"partition": 1, "drop": 1}


def test_frames_under_way_are_bounded() -> None:
    lane, waiting = Lane("s"), Waiting()
    lane.faults = Faults(delay=1)
    arrived: list[bytes] = []
    for _ in range(LIMIT + 5):
        for due, frame in lane.admit(FRAME, 0):
            waiting.add(due, lane, arrived.append, frame)
    assert lane.lost == {"limit": 5}
    assert waiting.left(0.25) == 0.75
    waiting.release(0.5)
    assert not arrived
    waiting.release(1)
    assert (len(arrived), lane.pending, waiting.left(1)) == (LIMIT, 0, None)


def test_frames_under_way_are_not_overtaken_when_faults_end() -> None:
    lane, waiting = Lane("s"), Waiting()
    lane.faults = Faults(delay=1)
    ((due, frame),) = lane.admit(FRAME, 0)
    waiting.add(due, lane, lambda frame: None, frame)
    lane.faults = Faults()
    assert lane.admit(FRAME, 0.5)[0][0] == 1
    assert lane.active
    waiting.release(1)
    assert lane.admit(FRAME, 1.5)[0][0] == 1.5


@pytest.mark.parametrize("wrong", [{"loss": 1.1}, {"loss": -0.1}, {"delay": -1}, {"rate": float("inf")}])
def test_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(MisuseError):
        Faults(**wrong)


@given(st.binary(max_size=40), st.floats(0, 1), st.integers(0, 50))
def test_no_frame_breaks_it(frame: bytes, share: float, mtu: int) -> None:
    lane = Lane("s")
    lane.faults = Faults(corrupt=share, duplicate=share, reorder=share, jitter=1, mtu=mtu, rate=1000)
    for due, changed in lane.admit(frame, 1.0):
        assert due >= 1
        assert len(changed) == len(frame)
