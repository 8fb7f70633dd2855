"""Networks as people have them: what the seed does on each, until it reaches a provider or says why not."""

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from lab.net.advertiser import Advertiser
from lab.net.dhcp import DhcpFaults
from lab.net.dns import DnsServer
from lab.plugin import Record
from lab.topology import Lab
from scenarios.images import Release
from scenarios.loop import PORT, Loop, mark


@pytest.fixture
def loop(lab: Lab, record: Record, release: Release, arch: str, tmp_path: Path) -> Loop:
    return Loop(lab, record, release, arch, tmp_path)


@pytest.mark.lab(vcpus=0.5, seconds=45)
def test_named_provider_is_looked_up(loop: Loop) -> None:
    """DHCP names a DNS server; the provider's name has a dead address, and then its own."""
    names = DnsServer(IPv4Address("10.77.0.3"))
    loop.lan.switch.add_service(names, "dns")
    loop.lan.dhcp.options[6] = names.address.packed
    server = loop.serve("phase.mdns=off")
    names.add("boot.example.org", "A", "10.77.0.4")
    names.add("boot.example.org", "A", loop.address(server))
    client = loop.boot_vm(f"phase.provider=http://boot.example.org:{PORT} phase.mdns=off")
    loop.reaches_job(client)
    loop.report("named provider", client)


@pytest.mark.lab(vcpus=0.5, seconds=45)
def test_no_dhcp_at_all(loop: Loop) -> None:
    """Both machines give themselves an address, and find each other by mDNS."""
    loop.lan.dhcp.faults = DhcpFaults(silent=True)
    loop.serve()
    client = loop.boot_vm()
    loop.reaches_job(client)
    assert str(mark(client, "network").facts["address"]).startswith("169.254.")
    assert "DHCP server" in client.console.text
    loop.report("no DHCP", client)


@pytest.mark.lab(vcpus=0.5, seconds=45)
def test_ipv6_only(loop: Loop) -> None:
    """Router advertisements are all there is; the provider is named by its address."""
    loop.lan.dhcp.faults = DhcpFaults(silent=True)
    router = Advertiser()
    loop.lan.switch.add_service(router, "router6")
    server = loop.serve("phase.mdns=off")
    shell = server.shell()
    shell.wait_until_succeeds("ip -6 address show scope global | grep -q inet6")
    said = shell.succeed("ip -6 address show dev eth0 scope global")
    address = IPv6Address(said.split("inet6 ")[1].split("/")[0])
    client = loop.boot_vm(f"phase.provider=http://[{address}]:{PORT} phase.mdns=off")
    loop.reaches_job(client)
    assert IPv6Address(str(mark(client, "network").facts["address"])) in router.prefix
    loop.report("IPv6 only", client)
