from ipaddress import IPv4Address, IPv4Network

import pytest

from lab.net import datagram as ip
from lab.net.firewall import Firewall, Rule
from lab.net.packet import ICMP, TCP, UDP, ipv4, udp

A, B = IPv4Address("10.77.0.10"), IPv4Address("10.77.1.10")
DNS = udp((A, 1000), (B, 53), b"")
ANSWER = udp((B, 53), (A, 1000), b"")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        (Rule("drop"), True),
        (Rule("drop", protocol=UDP, port=53), True),
        (Rule("drop", protocol=TCP), False),
        (Rule("drop", port=54), False),
        (Rule("drop", from_segment="lan", to_segment="wan"), True),
        (Rule("drop", from_segment="wan"), False),
        (Rule("drop", to_segment="lan"), False),
        (Rule("drop", source=IPv4Network("10.77.0.0/24"), destination=IPv4Network("10.77.1.10/32")), True),
        (Rule("drop", source=IPv4Network("10.77.1.0/24")), False),
        (Rule("drop", destination=IPv4Network("10.77.1.11/32")), False),
    ],
)
def test_a_rule_is_about_what_it_says(rule: Rule, matches: bool) -> None:
    assert Firewall((rule,), Clock()).judge(DNS, "lan", "wan") == ("drop" if matches else "accept")


def test_the_first_rule_that_matches_counts() -> None:
    rules = (Rule("accept", protocol=UDP, port=53), Rule("reject", protocol=UDP), Rule("drop"))
    firewall = Firewall(rules, Clock())
    assert firewall.judge(DNS, "lan", "wan") == "accept"
    assert firewall.judge(udp((A, 1), (B, 2), b""), "lan", "wan") == "reject"
    assert firewall.judge(ipv4(A, B, 47, b""), "lan", "wan") == "drop"


def test_answers_pass_and_nothing_else() -> None:
    clock = Clock()
    firewall = Firewall((Rule("drop", from_segment="wan"),), clock)
    assert firewall.judge(ANSWER, "wan", "lan") == "drop"
    assert firewall.judge(DNS, "lan", "wan") == "accept"
    assert firewall.judge(ANSWER, "wan", "lan") == "accept"
    assert firewall.judge(udp((B, 54), (A, 1000), b""), "wan", "lan") == "drop"
    clock.now = 119.0
    assert firewall.judge(ANSWER, "wan", "lan") == "accept"
    clock.now = 239.0
    assert firewall.judge(ANSWER, "wan", "lan") == "drop"


def test_an_error_about_a_flow_passes() -> None:
    firewall = Firewall((Rule("drop", from_segment="wan"),), Clock())
    about = ip.error(DNS, B, 3, 3)
    assert about is not None
    assert firewall.judge(about, "wan", "lan") == "drop"
    firewall.judge(DNS, "lan", "wan")
    assert about[9] == ICMP
    assert firewall.judge(about, "wan", "lan") == "accept"


def test_a_flow_that_has_begun_goes_on_under_new_rules() -> None:
    firewall = Firewall((), Clock())
    firewall.judge(DNS, "lan", "wan")
    firewall.rules = (Rule("drop"),)
    assert firewall.judge(ANSWER, "wan", "lan") == "accept"
    assert firewall.judge(udp((A, 1001), (B, 53), b""), "lan", "wan") == "drop"


def test_flows_are_remembered_to_a_bound() -> None:
    firewall = Firewall((Rule("drop", from_segment="wan"),), Clock())
    for port in range(5000):
        firewall.judge(udp((A, port), (B, 53), b""), "lan", "wan")
    found = [firewall.judge(udp((B, 53), (A, port), b""), "wan", "lan") for port in range(5000)]
    assert found == ["drop"] * 904 + ["accept"] * 4096
