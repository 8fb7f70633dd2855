"""The nodes that are known, whatever ids they give themselves."""

import os
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from phase.discovery.dht.table import MAX_OF_HOST, MAX_OF_NETWORK, K, Table, spread
from phase.discovery.dht.wire import Contact, id_at

OWN = bytes(20)


ODD = st.sampled_from([0, 1, 2**159 - 1, 2**159, 2**160 - 1])
SAID = st.tuples(ODD | st.integers(0, 2**160 - 1), st.integers(1, 60), st.integers(1, 3))


@given(st.lists(SAID, max_size=200))
def test_any_ids_leave_it_in_order(said: list[tuple[int, int, int]]) -> None:
    table = Table(OWN)
    for number, host, port in said:
        contact = Contact(number.to_bytes(20), f"192.0.2.{host}", port)
        table.add(contact)
        table.near(contact.id)
        if port == 3:
            table.drop(contact)
            assert contact not in table
    known = list(table)
    assert len({one.id for one in known}) == len(known)
    assert max(Counter(one.host for one in known).values(), default=0) <= MAX_OF_HOST


def test_those_who_are_there_stay() -> None:
    table = Table(OWN)
    first = [Contact(b"\xff" + os.urandom(19), f"192.0.2.{n}", 1) for n in range(K)]
    assert [table.add(one) for one in first] == [None] * K
    late = Contact(b"\xff" + os.urandom(19), "192.0.2.200", 1)
    assert table.add(late) == first[0], "who has not answered for longest is looked after"
    table.drop(first[0])
    assert table.add(late) is None
    assert late in list(table)


def test_nobody_is_dropped_for_another_with_its_id() -> None:
    table = Table(OWN)
    one = Contact(os.urandom(20), "192.0.2.1", 1)
    table.add(one)
    table.drop(one._replace(host="192.0.2.66"))
    assert list(table) == [one]
    assert table.add(one._replace(host="192.0.2.66")) == one
    anew = one._replace(id=os.urandom(20))
    assert table.add(anew) is None
    assert list(table) == [anew]


def test_an_address_decides_an_id() -> None:
    one, other = (Contact(id_at("192.0.2.1"), "192.0.2.1", port) for port in (1, 2))
    assert one.bound
    assert other.bound
    assert one.id != other.id
    assert not one._replace(host="192.0.2.2").bound
    assert not one._replace(id=os.urandom(20)).bound


def _in_one_bucket(count: int) -> list[Contact]:
    """Nodes whose addresses decide their ids, all at the same distance from `OWN`."""
    found: list[Contact] = []
    for number in range(2**16):
        host = f"198.51.{number >> 8}.{number & 255}"
        one = Contact(id_at(host), host, 1)
        if one.id[0] & 128:
            found.append(one)
        if len(found) == count:
            break
    return found


def test_chosen_ids_make_room_and_come_last() -> None:
    table = Table(OWN)
    crowd = [Contact(b"\xff" + os.urandom(19), f"192.0.2.{n}", 1) for n in range(K)]
    for one in crowd:
        table.add(one)
    honest = _in_one_bucket(K + 1)
    assert table.add(honest[0]) is None
    assert set(table) == {*crowd[1:], honest[0]}
    assert table.near(b"\xff" * 20, 1) == [honest[0]]
    for one in honest[1:K]:
        assert table.add(one) is None
    assert set(table) == set(honest[:K])
    # Of equals, those who are there stay.
    assert table.add(honest[K]) == honest[0]
    assert table.add(crowd[0]) == honest[0]


def test_a_rented_network_is_a_part_only() -> None:
    rented = [Contact(bytes(20), f"203.0.113.{n}", 1) for n in range(30)]
    others = [Contact(bytes(20), f"198.51.{n}.1", 1) for n in range(10)]
    chosen = spread([*rented, *others], 8)
    assert chosen == [*rented[:MAX_OF_NETWORK], *others[: 8 - MAX_OF_NETWORK]]
    # Where there is nothing else, as on a LAN, all are taken.
    assert spread(rented, 8) == rented[:8]
    assert spread([*rented, *others], 20) == [*rented[:10], *others]


def test_one_host_has_one_place_and_moves_to_the_end_when_it_answers() -> None:
    table = Table(OWN)
    first = [Contact(b"\xff" + os.urandom(19), f"192.0.2.{n}", 1) for n in range(K)]
    for one in first:
        table.add(one)
    assert table.add(Contact(b"\x0f" + os.urandom(19), "192.0.2.1", 2)) is None
    assert set(table) == set(first)
    # It has answered again, so the next one is looked after.
    assert table.add(first[0]) is None
    assert list(table) == [*first[1:], first[0]]
