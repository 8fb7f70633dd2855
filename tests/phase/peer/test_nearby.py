"""Nodes in multicast DNS: what is read, and two machines that find each other."""

import ipaddress
import json
from queue import SimpleQueue
from typing import Any

import pytest

from phase.discovery.interfaces import Interface
from phase.discovery.mdns import wire
from phase.discovery.mdns.browser import Complete
from phase.discovery.mdns.claims import Offer, claims
from phase.discovery.mdns.wire import NODE_SERVICE_NAME, Record
from phase.identity import Identity
from phase.peer.nearby import MAX_OF_TELLER, NodeOffer, NodeReader, from_txt
from phase.peer.records import Capability
from tests.networks import cable, hosts
from tests.phase.discovery.mdns.packets import ETH0, datagram, provider

KEY = Identity.from_seed(bytes(range(32))).public_key
CAN = Capability(
    arch="arm64", runtimes=("wasi-preview1", "wasi-0.2"), hosts=(), processors=4, memory=512, slots=2
)
TXT = {
    b"txtvers": b"1",
    b"key": KEY.encode(),
    b"arch": b"arm64",
    b"runtimes": b"wasi-preview1,wasi-0.2",
    b"processors": b"4",
    b"memory": b"512",
    b"slots": b"2",
}


def node(*ips: str, slots: int = 2) -> list[Record]:
    """All records of an honest node."""
    can = Capability(**{**{f: getattr(CAN, f) for f in CAN.__struct_fields__}, "slots": slots})
    said = claims([NodeOffer(KEY, can)], port=4433, identity=KEY[:8], service=NODE_SERVICE_NAME)
    return said.all([ipaddress.ip_address(ip) for ip in ips])


class Asker:
    def __init__(self) -> None:
        self.queue: SimpleQueue[Capability] = SimpleQueue()
        self.reader = NodeReader(self.queue)
        self.reader.here = {ETH0.number: ETH0}

    def hears(self, records: list[Record], interface: Interface = ETH0) -> list[Capability]:
        for data in wire.responses(records):
            self.reader.read(datagram(data, "192.0.2.1", interface))
        return [self.queue.get_nowait() for _ in range(self.queue.qsize())]


def test_a_node_is_read_once_until_it_says_something_else() -> None:
    asker = Asker()
    (found,) = asker.hears(node("192.0.2.1"))
    assert (found.key, found.hosts, found.arch) == (KEY, ("192.0.2.1:4433",), "arm64")
    assert (found.runtimes, found.slots) == (CAN.runtimes, 2)
    assert asker.hears(node("192.0.2.1")) == []
    assert [each.slots for each in asker.hears(node("192.0.2.1", slots=0))] == [0]


def test_providers_are_no_nodes_and_nodes_no_providers() -> None:
    assert Asker().hears(provider("192.0.2.1")) == []
    wrong = claims([Offer("stable", "x86_64", 1)], port=1, identity="x", service=NODE_SERVICE_NAME)
    assert Asker().hears(wrong.all([ipaddress.ip_address("192.0.2.1")])) == []


def test_link_local_addresses_are_left_out() -> None:
    assert [each.hosts for each in Asker().hears(node("192.0.2.1", "fe80::1"))] == [("192.0.2.1:4433",)]


def test_what_is_kept_is_bounded() -> None:
    asker = Asker()
    teller = ipaddress.ip_address("192.0.2.1")
    for slots in range(300):
        txt = {**TXT, b"slots": str(slots).encode()}
        asker.reader.take(Complete(NODE_SERVICE_NAME, teller, txt, 200, "192.0.2.1", "", 4433))
    assert asker.queue.qsize() == len(asker.reader._told) == 256


def test_one_sender_does_not_crowd_out_the_others() -> None:
    asker = Asker()
    for host in (1, 2):
        teller = ipaddress.ip_address(f"192.0.2.{host}")
        for number in range(40):
            txt = {**TXT, b"key": f"{host}{number:063}".encode()}
            asker.reader.take(Complete(NODE_SERVICE_NAME, teller, txt, 200, "192.0.2.9", "", 4433))
    keys = [asker.queue.get_nowait().key[0] for _ in range(asker.queue.qsize())]
    assert (keys.count("1"), keys.count("2")) == (MAX_OF_TELLER, MAX_OF_TELLER)


@pytest.mark.parametrize(
    "changed",
    [
        {b"txtvers": b"2"},
        {b"key": b"ab"},
        {b"key": KEY.upper().encode()},
        {b"key": None},
        {b"arch": b"a b"},
        {b"runtimes": b""},
        {b"runtimes": b"a,b,c,d,e"},
        {b"runtimes": b"a,,b"},
        {b"slots": b"-1"},
        {b"slots": b"999999999"},
        {b"memory": "५".encode()},
        {f"x{n}".encode(): b"" for n in range(10)},
    ],
    ids=range(12),
)
def test_malformed_answer_is_passed_over(changed: dict[bytes, bytes | None]) -> None:
    assert from_txt({**TXT, **changed}, "192.0.2.1", 4433, size=200) is None


def test_size_and_port_are_bounded() -> None:
    assert from_txt(TXT, "192.0.2.1", 4433, size=200) is not None
    assert from_txt(TXT, "192.0.2.1", 4433, size=401) is None
    assert from_txt(TXT, "192.0.2.1", 0, size=200) is None


_ADVERTISE = """
import asyncio, sys
from phase.discovery.mdns import link
from phase.peer.nearby import advertise
from phase.peer.records import Capability
link.PROBE_SECONDS = 0.02
can = Capability(arch="arm64", runtimes=("wasi-preview1",), hosts=(), processors=4, memory=512, slots=2)
asyncio.run(advertise(lambda: can, key="%s", hosts=["0.0.0.0"], port=4433))
"""
_FIND = """
import asyncio, json
from phase.peer.nearby import find
async def main():
    for arches in (("x86_64",), ("arm64",)):
        async for each in find(arches, "wasi-preview1", timeout=6):
            print(json.dumps([each.key, each.arch, each.hosts]), flush=True)
            return
asyncio.run(main())
"""


def test_two_machines_find_each_other() -> None:
    with hosts(2) as (one, other):
        cable(one, "eth0", other, "eth0")
        for number, host in ((1, one), (2, other)):
            host.ip(f"address add 192.0.2.{number}/24 dev eth0", "link set eth0 up")
        with one.python("-c", _ADVERTISE % KEY) as advertiser, other.python("-c", _FIND) as asker:
            assert asker.stdout is not None
            found: list[Any] = [json.loads(line) for line in asker.stdout]
            advertiser.terminate()
    assert found == [[KEY, "arm64", ["192.0.2.1:4433"]]]
