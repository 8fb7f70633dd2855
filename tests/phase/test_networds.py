"""The words that describe a network, as people and firmware write them."""

import pytest

from phase import cmdline, networds


@pytest.mark.parametrize(
    "word",
    [
        "ip=10.0.0.5::10.0.0.1:255.255.255.0::eth0:none",
        "ip=10.0.0.5::10.0.0.1:24::eth0:off:1400",
        "ip=10.0.0.5:::24:lab-7.example::",
        "ip=10.0.0.5:::24",
        "ip=[fd00::5]::[fd00::1]:64::eth0:none",
        "ip=dhcp",
        "ip=eth1:dhcp",
        "ip=eth1:off",
        "vlan=eth0.5:eth0",
        "vlan=vlan4094:bond0",
        "bond=bond0:eth0,eth1",
        "bond=bond0:eth0,eth1:mode=802.3ad,miimon=100,lacp_rate=fast:9000",
        "nameserver=192.0.2.53",
        "nameserver=[fd00::53]",
        "nameserver=fd00::53",
        "BOOTIF=01-52-54-00-12-34-56",
        "BOOTIF=52:54:00:12:34:56",
    ],
)
def test_what_can_be_used_is_carried_over_the_handoff(word: str) -> None:
    name, _, value = word.partition("=")
    assert networds.wants(name, value) == ""
    assert not cmdline.parse(word).problems
    assert cmdline.compose("quiet", word, rootfs="0" * 64).split()[1] == word


@pytest.mark.parametrize(
    "word",
    [
        "ip=",
        "ip=auto6",
        "ip=10.0.0.5",
        "ip=10.0.0.5:::",
        "ip=10.0.0.5::10.0.0.1:255.0.255.0::eth0:none",
        "ip=10.0.0.5::fd00::1:24::eth0:none",
        "ip=127.0.0.1:::8",
        "ip=224.0.0.1:::8",
        "ip=10.0.0.5:::0",
        "ip=10.0.0.5:::33",
        "ip=10.0.0.256:::24",
        "ip=10.0.0.5:::24::eth0:dhcp",
        "ip=10.0.0.5:::24::e/0:none",
        "ip=10.0.0.5:::24::eth0:none:500",
        "ip=10.0.0.5:10.0.0.9::24::eth0:none",
        "ip=[fd00::5]:::255.0.0.0",
        "ip=10.0.0.5:::24:a$b::",
        "vlan=eth0:eth0",
        "vlan=eth0.0:eth0",
        "vlan=eth0.4095:eth0",
        "vlan=eth0.5",
        "vlan=a-name-that-is-too-long.5:eth0",
        "bond=bond0",
        "bond=bond0:",
        "bond=bond0:eth0:speed=9",
        "nameserver=",
        "nameserver=dns.example",
        "nameserver=::1",
        "nameserver=fe80::1%eth0",
        "BOOTIF=01-52-54-00-12-34",
        "BOOTIF=eth0",
    ],
)
def test_what_cannot_be_used_is_told_and_not_carried(word: str) -> None:
    name, _, value = word.partition("=")
    assert networds.wants(name, value)
    assert cmdline.parse(word).problems == (word,)
    assert cmdline.remarks(word) == [
        f"ignored on the kernel command line: {word} (write {networds.wants(name, value)})"
    ]
    assert cmdline.compose("quiet", word, rootfs="0" * 64).split()[:-1] == ["quiet"]


def test_words_of_a_network_that_the_release_signs_win() -> None:
    line = cmdline.compose("ip=eth0:off", "ip=dhcp vlan=eth0.5:eth0", rootfs="0" * 64)
    assert line.split()[:-1] == ["ip=eth0:off", "vlan=eth0.5:eth0"]


def test_several_of_a_kind_are_carried() -> None:
    words = "nameserver=192.0.2.53 nameserver=192.0.2.54 ip=eth0:dhcp ip=eth1:off"
    assert cmdline.compose("", words, rootfs="0" * 64).rpartition(" ")[0] == words
