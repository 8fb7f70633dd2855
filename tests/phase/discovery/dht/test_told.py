"""Of what a node of the DHT tells of others, only what it can know is asked."""

import pytest

from phase.discovery.dht import wire

ID = bytes(20)


def _asked(host: str, *, teller: str, port: int = 8080) -> list[str]:
    return [found.host for found in wire.usable([(ID, host, port)], teller=teller)]


@pytest.mark.parametrize("teller", ["192.0.2.1", "10.0.0.2"])
@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10"])
def test_a_far_node_does_not_name_this_machine(host: str, teller: str) -> None:
    assert _asked(host, teller=teller) == []


def test_a_node_on_this_machine_may() -> None:
    assert _asked("127.0.0.1", teller="127.0.0.1") == ["127.0.0.1"]
    assert _asked("192.0.2.9", teller="192.0.2.1") == ["192.0.2.9"]


@pytest.mark.parametrize("host", ["224.0.0.251", "0.0.0.0", "255.255.255.255", "::1", "host.example", ""])
def test_what_is_no_host_is_not_asked(host: str) -> None:
    assert _asked(host, teller="127.0.0.1") == []


@pytest.mark.parametrize(("port", "count"), [(0, 0), (1, 1), (65_535, 1), (65_536, 0), (-1, 0)])
def test_a_port_is_one_that_can_be_asked(port: int, count: int) -> None:
    assert len(_asked("192.0.2.9", teller="192.0.2.1", port=port)) == count
