"""The nodes that are known, whatever ids they give themselves."""

import os
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from phase.discovery.dht.table import MAX_OF_HOST, K, Table
from phase.discovery.dht.wire import Contact

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
