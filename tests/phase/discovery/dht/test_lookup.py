"""Which node a lookup asks next, decided without a network."""

from phase.discovery.dht import wire
from phase.discovery.dht.lookup import MAX_ASKED, MAX_SILENT, PATHS, Lookup
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


def bound(number: int, host: str = "") -> Contact:
    """A node whose address decides its id."""
    host = host or f"198.51.{number}.1"
    return Contact(wire.id_at(host), host, 4000)


def test_an_id_that_its_holder_has_chosen_comes_last() -> None:
    """However near it is."""
    crowd = [contact(n) for n in range(K)]
    honest = [bound(n) for n in range(K)]
    search = lookup(*crowd, *honest, nearest_only=True)
    first = [search.choose() for _ in range(K)]
    assert set(first) == set(honest)
    for one in honest:
        search.answered(one, [])
    assert search.choose() is None
    assert search.nearest == sorted(honest, key=lambda one: one.number)


def test_what_a_liar_names_stays_on_its_own_path() -> None:
    """The others go on meanwhile, and what they name is asked as often."""
    liar, one, other = (bound(n) for n in range(3))
    search = lookup(liar, one, other)
    for _ in range(PATHS):
        assert search.choose() in (liar, one, other)
    crowd = [bound(10 + n) for n in range(20)]
    search.answered(liar, named(*crowd))
    search.answered(one, named(*(bound(100 + n) for n in range(6))))
    search.answered(other, named(*(bound(200 + n) for n in range(6))))
    asked = []
    for _ in range(3 * 6):
        chosen = search.choose()
        assert chosen is not None
        asked.append(chosen)
        search.answered(chosen, named(*crowd) if chosen in crowd else [])
    assert sum(each in crowd for each in asked) == 6


def test_who_begins_with_one_node_has_all_paths_soon() -> None:
    """What that one names is dealt."""
    only = bound(0)
    search = lookup(only)
    assert search.choose() == only
    rest = [bound(n) for n in range(1, 21)]
    search.answered(only, named(*rest))
    for _ in range(PATHS - 1):
        assert search.choose() in rest
    assert set(search._path_of.values()) == set(range(PATHS))


def test_one_network_is_not_asked_alone() -> None:
    """Nearer hosts of a rented network, and one host elsewhere: it comes after eight of them at most."""
    rented = [contact(n, f"203.0.113.{n}") for n in range(1, 41)]
    honest = contact(1000)
    search = lookup(*rented, honest)
    first = [search.choose() for _ in range(3 * 8 + 1)]
    assert honest in first[: 8 + PATHS]


def test_a_search_that_has_found_ends_with_the_nearest() -> None:
    known = [contact(n) for n in range(1, K + 6)]
    search = lookup(*known)
    for _ in range(K):
        chosen = search.choose()
        assert chosen is not None
        search.answered(chosen, [])
    search.nearest_only = True
    assert search.choose() is None
    search.nearest_only = False
    assert search.choose() is not None


def test_who_names_more_that_answer_than_that_do_not_is_believed() -> None:
    """A fifth of all nodes is gone at times; that makes nobody a liar."""
    one, other = contact(500), contact(501)
    search = lookup(one, other)
    assert {search.choose(), search.choose()} == {one, other}
    search.answered(one, named(contact(1), contact(2), contact(3)))
    search.answered(other, named(contact(400), contact(401)))
    assert search.choose() == contact(1)
    search.answered(contact(1), [])
    assert search.choose() == contact(2)
    search.silent(contact(2))
    assert search.choose() == contact(400)
    assert search.choose() == contact(3)
    search.silent(contact(3))
    search.answered(contact(400), named(contact(402)))
    assert [search.choose(), search.choose()] == [contact(401), contact(402)]


def test_what_two_paths_name_is_asked_on_any() -> None:
    """Nobody has to ask far nodes while near ones wait for another path's turn."""
    tellers = [contact(900 + n) for n in range(PATHS)]
    far = [contact(1000 + n) for n in range(2 * PATHS)]
    near = [contact(n) for n in range(1, 2 * PATHS)]
    search = lookup(*tellers, *far)
    assert [search.choose() for _ in tellers] == tellers
    search.answered(tellers[0], named(*near))
    search.answered(tellers[1], named(*near))
    assert [search.choose() for _ in near] == near
    # What it names belongs to the path on which it was asked.
    search.answered(near[1], named(contact(500)))
    assert search.choose() in far
