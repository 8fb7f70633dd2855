"""A host has what it has not used up, and all hosts together have a limit, too."""

from phase.discovery import budget
from phase.discovery.budget import Budget


def test_a_burst_then_the_rate() -> None:
    one = Budget(2.0, 10.0)
    assert one.take("a", 10, 0.0)
    assert not one.take("a", 1, 0.0)
    assert not one.take("a", 1, 0.49)
    assert one.take("a", 1, 0.5)
    # What was refused has cost nothing; what is saved up has a limit.
    assert one.take("a", 10, 100.0)
    assert not one.take("a", 1, 100.0)


def test_each_host_has_its_own() -> None:
    one = Budget(1.0, 3.0)
    assert one.take("a", 3, 5.0)
    assert not one.take("a", 1, 5.0)
    assert one.take("b", 3, 5.0)
    assert not one.take("b", 4, 100.0)


def test_all_hosts_together_have_so_many_times_that() -> None:
    one = Budget(1.0, 2.0, together=3)
    assert [one.take(host, 2, 7.0) for host in "abcd"] == [True, True, True, False]
    # They gain three units a second together.
    assert not one.take("d", 2, 7.6)
    assert one.take("d", 2, 7.7)
    assert not one.take("e", 2, 7.7)
    assert one.take("e", 2, 100.0)
    assert [one.take(host, 2, 100.0) for host in "fgh"] == [True, True, False]


def test_thirty_two_hosts_unless_said_otherwise() -> None:
    one = Budget(1.0, 1.0)
    assert sum(one.take(str(host), 1, 0.0) for host in range(40)) == 32


def test_the_least_recent_host_is_forgotten_first() -> None:
    one = Budget(1.0, 1.0, together=10_000)
    for host in range(budget.MAX_HOSTS):
        assert one.take(str(host), 1, 0.0)
    # It asks again, so it is not the least recent one; and it has nothing left.
    assert not one.take("0", 1, 0.0)
    assert one.take("new", 1, 0.0)
    assert not one.take("0", 1, 0.0)
    assert not one.take("2", 1, 0.0)
    assert one.take("1", 1, 0.0)
