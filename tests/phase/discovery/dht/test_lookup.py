"""Which node a lookup asks next, decided without a network."""

from phase.discovery.dht import wire
from phase.discovery.dht.lookup import MAX_ASKED, MAX_SILENT, Lookup
from phase.discovery.dht.table import K
from phase.discovery.dht.wire import Contact

PLACE = bytes(wire.ID_BYTES)


def contact(distance: int, host: str = "") -> Contact:
    """A node at a distance from `PLACE`, on a host of its own if none is given."""
    host = host or f"192.0.{distance >> 8}.{distance & 255}"
    return Contact(distance.to_bytes(wire.ID_BYTES), host, 4000)


def lookup(*known: Contact, nearest_only: bool = False) -> Lookup:
    return Lookup(PLACE, known, own=b"\xff" * wire.ID_BYTES, nearest_only=nearest_only)


def named(*contacts: Contact) -> list[tuple[bytes, str, int]]:
    return [(each.id, each.host, each.port) for each in contacts]


def test_the_nearest_is_asked_first_and_each_once() -> None:
    far, near = contact(9), contact(1)
    search = lookup(far, near)
    assert [search.choose(), search.choose(), search.choose()] == [near, far, None]


def test_nodes_that_an_answer_names_are_asked_after_those_known() -> None:
    known, other, new = contact(8), contact(9), contact(1)
    search = lookup(known, other)
    assert search.choose() == known
    search.answered(known, named(new, known))
    assert [search.choose(), search.choose(), search.choose()] == [other, new, None]
    search.answered(new, [])
    assert search.nearest == [new, known]


def test_a_host_that_names_silent_nodes_is_believed_last() -> None:
    liar, honest = contact(8), contact(9)
    search = lookup(liar, honest)
    assert [search.choose(), search.choose()] == [liar, honest]
    search.answered(liar, named(*(contact(n) for n in (1, 2))))
    search.answered(honest, named(contact(7)))
    assert search.choose() == contact(1)
    search.silent(contact(1))
    assert [search.choose(), search.choose()] == [contact(7), contact(2)]


def test_one_host_is_asked_as_one_node_and_three_times_if_it_is_silent() -> None:
    same = [contact(n, "192.0.2.1") for n in range(1, 6)]
    search = lookup(*same)
    for number in range(3):
        assert search.choose() == same[number]
        assert search.choose() is None
        search.silent(same[number])
    assert search.choose() is None


def test_it_ends_at_its_limits() -> None:
    search = lookup(*(contact(n) for n in range(1, 2 * MAX_ASKED)))
    assert sum(search.choose() is not None for _ in range(2 * MAX_ASKED)) == MAX_ASKED

    teller = contact(500)
    search = lookup(teller)
    assert search.choose() == teller
    search.answered(teller, named(*(contact(n) for n in range(1, MAX_ASKED))))
    asked = 0
    while (chosen := search.choose()) is not None:
        search.silent(chosen)
        asked += 1
    assert asked == MAX_SILENT


def test_only_a_search_for_nodes_ends_with_the_nearest() -> None:
    for nearest_only in (True, False):
        search = lookup(*(contact(n) for n in range(1, K + 2)), nearest_only=nearest_only)
        for _ in range(K):
            chosen = search.choose()
            assert chosen is not None
            search.answered(chosen, [])
        assert (search.choose() is None) == nearest_only
