from ipaddress import IPv4Address

from lab.net.neighbour import Neighbour
from lab.net.packet import arp_request, parse

MAC = b"\x52\x54\0\1\2\3"


def test_it_answers_for_its_address_also_who_has_none() -> None:
    neighbour = Neighbour(IPv4Address("10.77.0.10"))
    for asker in ("10.77.0.5", "0.0.0.0"):
        (answer,) = neighbour(arp_request(MAC, IPv4Address(asker), neighbour.address))
        said = parse(answer)
        assert (said.source, said.operation, said.to_mac) == (neighbour.address, 2, MAC)
    assert neighbour(arp_request(MAC, IPv4Address("10.77.0.5"), IPv4Address("10.77.0.11"))) == []
    assert neighbour(b"") == []
