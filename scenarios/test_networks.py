"""Networks as people have them: what the seed does on each, until it reaches a provider or says why not."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from lab.net.advertiser import Advertiser
from lab.net.dhcp import DhcpFaults
from lab.net.dns import DnsServer
from lab.net.faults import Faults
from lab.net.hostport import refusal
from lab.net.segment import Segment
from lab.plugin import Record
from lab.qemu.vm import VM
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
    server = loop.serve("phase.mdns=off", staged=True)
    loop.lan.dhcp.options[6] = names.address.packed
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
    assert "no lease by DHCP; this machine calls itself 169.254." in client.console.text
    loop.report("no DHCP", client)


@pytest.mark.lab(vcpus=0.5, seconds=45)
@pytest.mark.parametrize("found", ["named", "mdns"])
def test_ipv6_only(loop: Loop, found: str) -> None:
    """Router advertisements are all there is; the provider is named by its address, or found."""
    loop.lan.dhcp.faults = DhcpFaults(silent=True)
    router = Advertiser()
    loop.lan.switch.add_service(router, "router6")
    if found == "mdns":
        loop.serve()
        words = ""
    else:
        shell = loop.serve("phase.mdns=off").shell()
        shell.wait_until_succeeds("ip -6 address show scope global | grep -q inet6")
        said = shell.succeed("ip -6 address show dev eth0 scope global")
        address = IPv6Address(said.split("inet6 ")[1].split("/")[0])
        words = f"phase.provider=http://[{address}]:{PORT} phase.mdns=off"
    client = loop.boot_vm(words)
    loop.reaches_job(client)
    assert IPv6Address(str(mark(client, "network").facts["address"])) in router.prefix
    loop.report(f"IPv6 only, {found}", client)


@contextmanager
def provider(loop: Loop, segment: Segment | None = None) -> Iterator[str]:
    """The release, served by a program of this host; its URL."""
    if why := refusal():
        pytest.skip(why)
    port = loop.lab.host_port("provider", segment or loop.lan)
    words = ("--artifacts", loop.release.directory, "--bind", port.address.ip, "--port", PORT)
    serve = (sys.executable, "-m", "phase", "serve", *map(str, words), "--no-mdns", "--no-dht")
    with port.running(*serve):
        port.run(
            "curl", "-sSf", "--retry", "40", "--retry-connrefused", f"http://{port.address.ip}:{PORT}/health"
        )
        yield f"http://{port.address.ip}:{PORT}"


def believes(client: VM) -> None:
    """It has reached a provider, and read a whole release's metadata."""
    # Not `wait_mark`: that ends with the first failed attempt.
    client.console.wait(
        lambda: next((seen for seen in client.marks if (seen.step, seen.outcome) == ("trust", "ok")), None),
        "release that it believes",
        timeout=120,
    )


@pytest.mark.lab(vcpus=0.5, seconds=30)
def test_classless_routes_and_a_gateway_off_the_link(loop: Loop) -> None:
    """A /32 lease, option 121 and no option 3, as clouds give; the provider is behind the router."""
    far = loop.lab.segment("far")
    box = loop.lab.router("box", loop.lan, far)
    gateway = box.address("lan").packed
    routes = b"\x20" + gateway + bytes(4) + b"\0" + gateway
    loop.lan.dhcp.faults = DhcpFaults(options={1: b"\xff" * 4, 28: b"", 3: b"", 121: routes})
    with provider(loop, far) as url:
        believes(loop.boot_vm(f"phase.provider={url} phase.mdns=off"))


@pytest.mark.lab(vcpus=0.5, seconds=40)
def test_slow_dhcp(loop: Loop) -> None:
    """Each answer of the server takes five seconds."""
    loop.lan.link("dhcp").from_machine = Faults(delay=5)
    with provider(loop) as url:
        client = loop.boot_vm(f"phase.provider={url} phase.mdns=off")
        believes(client)
    assert mark(client, "network").facts["address"] == loop.address(client)


@pytest.mark.lab(vcpus=0.5, seconds=30)
def test_only_the_second_card_has_dhcp(loop: Loop) -> None:
    """Also a card whose lease comes when the first one is long connected is searched."""
    other = loop.lab.segment("other")
    other.dhcp.faults = DhcpFaults(silent=True)
    kernel, initrd = loop.release.seed(loop.arch, loop.work)
    with provider(loop) as url:
        client = loop.lab.vm(
            "client",
            arch=loop.arch,
            kernel=kernel,
            initrd=initrd,
            append=f"quiet panic=-1 phase.rescue=shell phase.provider={url} phase.mdns=off",
            segments=(other, loop.lan),
        )
        client.start()
        believes(client)
    assert mark(client, "network").facts["interface"] == "eth1"


@pytest.mark.lab(vcpus=0.5, seconds=40)
@pytest.mark.parametrize("said", [True, False], ids=["said", "unsaid"])
def test_small_path_mtu(loop: Loop, said: bool) -> None:
    """Longer packets than 1280 bytes vanish on the way to the machine; DHCP says so, or not."""
    if said:
        loop.lan.dhcp.options[26] = b"\x05\0"
    with provider(loop) as url:
        client = loop.boot_vm(f"phase.provider={url} phase.mdns=off", on=False)
        # An Ethernet header is no part of the MTU.
        loop.lan.link(client).to_machine = Faults(mtu=1280)
        client.start()
        believes(client)


@pytest.mark.lab(vcpus=0.5, seconds=30)
def test_no_card_is_known_after_seconds(loop: Loop) -> None:
    kernel, initrd = loop.release.seed(loop.arch, loop.work)
    line = "quiet panic=-1 phase.rescue=shell phase.timeout=20"
    client = loop.lab.vm("client", arch=loop.arch, kernel=kernel, initrd=initrd, append=line)
    client.start()
    failed = client.wait_mark("network", outcome="failed", timeout=60)
    assert "no network card that this seed can drive: this machine shows none" in str(failed.facts["reason"])
    assert failed.t - mark(client, "init").t < 8


@pytest.mark.lab(vcpus=0.5, seconds=50)
def test_leases_renewed_leave_ipv6_alone(loop: Loop) -> None:
    """A lease of 24 seconds over a minute, in the booted system."""
    loop.lan.dhcp.faults = DhcpFaults(lease=24)
    loop.lan.switch.add_service(Advertiser(), "router6")
    shell = loop.serve("phase.mdns=off").shell()
    shell.wait_until_succeeds("ip -6 address show scope global | grep -q inet6")
    before = shell.succeed("ip -o address show dev eth0 | sed 's/ *valid_lft.*//'")
    shell.succeed("sleep 40", timeout=120)
    assert shell.succeed("ip -o address show dev eth0 | sed 's/ *valid_lft.*//'") == before
    assert len(before.splitlines()) == 3
