"""How often one sender is answered."""

from phase.netboot import rates
from phase.netboot.rates import Rates


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_and_then_one_now_and_then() -> None:
    clock = Clock()
    limit = Rates(3, 2.0, clock=clock)
    assert [limit.allow("a") for _ in range(5)] == [True, True, True, False, False]
    assert limit.allow("b"), "another sender has a count of its own"
    clock.now += 2.0
    assert [limit.allow("a") for _ in range(2)] == [True, False]
    clock.now += 100.0
    assert [limit.allow("a") for _ in range(4)] == [True, True, True, False]


def test_a_sender_that_never_stops_is_not_shut_out_for_ever() -> None:
    clock = Clock()
    limit = Rates(2, 1.0, clock=clock)
    answered = 0
    for _ in range(1000):
        answered += limit.allow("a")
        clock.now += 0.01
    assert 10 <= answered <= 12


def test_so_many_senders_are_remembered() -> None:
    limit = Rates(1, 1e9)
    for number in range(rates.MAX_SENDERS + 10):
        assert limit.allow(number)
    assert not limit.allow(rates.MAX_SENDERS)
    assert limit.allow(0), "the one that was heard longest ago is forgotten"
    assert len(limit._full) == rates.MAX_SENDERS
