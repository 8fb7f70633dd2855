"""Routers, NATs and firewalls between segments, measured inside of the machines on both sides."""

import re
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lab.net.dns import DnsServer
from lab.net.firewall import Rule
from lab.net.nat import FULL_CONE, SYMMETRIC, Nat
from lab.net.packet import ICMP, TCP, UDP
from lab.net.segment import Segment
from lab.qemu.vm import VM
from lab.topology import Lab
from scenarios import lab_guest

#: TCP's first segment of a connection has this flag alone.
_SYN = 2

Guest = Callable[[str, Segment], VM]


@pytest.fixture
def guest(lab: Lab, arch: str, tmp_path: Path) -> Guest:
    """Makes a machine on a segment; on, with a shell once `ready`."""
    kernel, initrd = lab_guest.build(arch, tmp_path)

    def make(name: str, segment: Segment) -> VM:
        vm = lab.vm(
            name, arch=arch, memory=128, kernel=kernel, initrd=initrd, append="panic=-1", segments=(segment,)
        )
        vm.start()
        return vm

    return make


def ready(*machines: VM) -> None:
    for vm in machines:
        vm.wait_mark("init")


def serve(vm: VM) -> None:
    """Give away a page, and a file of random bytes."""
    vm.shell().succeed(
        "mkdir /tmp/www; echo welcome >/tmp/www/page; head -c 300000 /dev/urandom >/tmp/www/file; "
        "httpd -h /tmp/www"
    )


@pytest.mark.lab(vcpus=0.6, memory=512)
def test_packets_cross_two_routers(lab: Lab, guest: Guest) -> None:
    """Two segments with a third between them: ping, a download, hops counted, a narrow way found."""
    home, middle, far = (lab.segment(name) for name in ("home", "middle", "far"))
    first = lab.router("first", home, middle)
    second = lab.router("second", middle, far, routes={home.network: first.address("middle")})
    first.routes[far.network] = second.address("middle")
    client, server = guest("client", home), guest("server", far)
    ready(client, server)
    serve(server)
    shell, there = client.shell(), str(lab.address(server, far))

    # Each of the two routers counts down by one.
    assert "ttl=62" in shell.succeed(f"ping -c 3 -W 5 {there}")
    digest = server.shell().succeed("sha256sum </tmp/www/file")
    assert shell.succeed(f"wget -q -O - http://{there}/file | sha256sum", timeout=120) == digest
    hops = [str(first.address("home")), str(second.address("middle")), there]
    said = shell.succeed(f"busybox traceroute -n -q 1 -w 3 {there}", timeout=60)
    assert re.findall(r"^ *\d+ +([\d.]+)", said, re.MULTILINE) == hops
    assert "!N" in shell.succeed("busybox traceroute -n -q 1 -w 3 -m 2 192.0.2.1"), "no such network"

    # The sender is told how much gets through, and divides by it.
    first.interfaces["middle"].mtu = 1000
    assert shell.succeed(f"wget -q -O - http://{there}/file | sha256sum", timeout=120) == digest
    longest = max(frame.length for frame in middle.traffic() if frame.link == "first")
    assert longest > 1000
    second.interfaces["middle"].mtu = 600
    server.shell().succeed(f"ping -c 2 -W 5 -s 1400 {lab.address(client, home)}")
    narrow = [
        frame.length for frame in middle.traffic() if (frame.link, frame.direction) == ("second", "inbound")
    ][-3:]
    assert max(narrow) <= 614
    assert second.dropped["malformed"] == first.dropped["malformed"] == 0


def ports_seen(segment: Segment, source: IPv4Address, destination: str) -> set[int]:
    """The ports from which connections were begun."""
    begun = segment.seen(
        lambda packet: (
            (packet.protocol, packet.operation, packet.source, str(packet.destination))
            == (TCP, _SYN, source, destination)
        )
    )
    return {packet.source_port for packet in begun if packet.source_port is not None}


KINDS = {"full-cone": FULL_CONE, "symmetric": SYMMETRIC}


@pytest.mark.lab(vcpus=0.6, memory=640, seconds=20)
@pytest.mark.parametrize("kind", KINDS)
def test_a_nat_is_seen_from_outside(lab: Lab, guest: Guest, kind: str) -> None:
    """Who is behind a box is hidden; whether strangers may come in, and which ports show, tells its kind."""
    nat: Nat = KINDS[kind]
    home, world = lab.segment("home"), lab.segment("world")
    box = lab.router("box", home, world, nat=nat)
    names = DnsServer(IPv4Address("10.77.1.3"))
    client, server, stranger = guest("client", home), guest("server", world), guest("stranger", world)
    ready(client, server, stranger)
    serve(server)
    serve(stranger)
    shell, outside = client.shell(), box.address("world")
    there, other = (str(lab.address(vm, world)) for vm in (server, stranger))

    # The three protocols come back.
    names.add("server.lab", "A", there)
    world.switch.add_service(names, "dns")
    assert "ttl=63" in shell.succeed(f"ping -c 2 -W 5 {there}")
    assert there in shell.succeed(f"busybox nslookup -type=a server.lab {names.address}")
    assert shell.succeed(f"wget -q -O - http://{there}/page").strip() == "welcome"
    hidden = lab.address(client, home)
    assert world.seen(lambda packet: hidden in (packet.source, packet.destination)) == []
    assert box.translator is not None
    assert {mapped.address for mapped in box.translator.mappings} == {hidden}
    server.shell().fail(f"ping -c 1 -W 2 {hidden}")

    # One port inside, two receivers outside: how many ports do they see?
    shell.succeed("echo 5000 5000 >/proc/sys/net/ipv4/ip_local_port_range")
    # Whoever closes first keeps the port for a minute, and nobody can listen there: keep none.
    shell.succeed("echo 0 >/proc/sys/net/ipv4/tcp_max_tw_buckets")
    before = box.translator.mappings
    for address in (there, other):
        shell.succeed(f"wget -q -O - http://{address}/page | grep welcome")
    made = [mapped for mapped in box.translator.mappings if mapped not in before]
    assert {mapped.port for mapped in made} == {5000}
    seen = [
        ports_seen(world, outside, address) & {each.outside for each in made} for address in (there, other)
    ]
    assert len(seen[0] | seen[1]) == len(made) == (1 if kind == "full-cone" else 2)

    # A stranger comes in by the port that the server saw, or does not.
    port = made[0].outside
    shell.succeed("(echo hello | nc -l -p 5000 >/tmp/heard) >/dev/null 2>&1 &")
    # Port 5000, listening, as the kernel writes it.
    shell.wait_until_succeeds("cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -q ':1388 .* 0A '")
    knock = f"echo knock | busybox timeout 5 nc {outside} {port}"
    if kind == "full-cone":
        assert "hello" in stranger.shell().run(knock).output
        shell.wait_until_succeeds("grep -q knock /tmp/heard")
    else:
        assert "hello" not in stranger.shell().run(knock).output
        assert box.dropped["unmapped"] > 0

    # A box that was switched off and on knows nobody.
    box.restart()
    refused = box.dropped["unmapped"]
    assert "hello" not in server.shell().run(knock).output
    assert box.dropped["unmapped"] > refused


@pytest.mark.lab(vcpus=0.4, memory=512)
def test_a_firewall_drops_rejects_and_lets_answers_in(lab: Lab, guest: Guest) -> None:
    """What is dropped times out, what is rejected fails at once, and what was begun inside comes back."""
    home, world = lab.segment("home"), lab.segment("world")
    rules = (
        Rule("drop", from_segment="home", protocol=TCP, port=8001),
        Rule("reject", from_segment="home", protocol=TCP, port=8002),
        Rule("reject", from_segment="home", protocol=UDP),
        Rule("accept", from_segment="world", protocol=TCP, port=8003),
        Rule("drop", from_segment="world"),
    )
    box = lab.router("box", home, world, rules=rules)
    client, server = guest("client", home), guest("server", world)
    ready(client, server)
    for vm in (client, server):
        serve(vm)
        vm.shell().succeed("for port in 8001 8002 8003; do httpd -p $port -h /tmp/www; done")
    inside, outside = client.shell(), server.shell()
    here, there = str(lab.address(client, home)), str(lab.address(server, world))

    fetch = "busybox timeout 5 wget -q -O - http://{}:{}/page 2>&1"
    assert inside.succeed(fetch.format(there, 80)).strip() == "welcome"
    assert "refused" not in inside.fail(fetch.format(there, 8001))
    assert "refused" in inside.fail(fetch.format(there, 8002))
    assert box.dropped["drop"] > 0
    said = inside.run(f"busybox traceroute -n -q 1 -w 3 -f 2 -m 2 {there} 2>&1").output
    assert "!A" in said, "administratively prohibited"

    # Answers pass, questions from outside do not, but for one port.
    inside.succeed(f"ping -c 2 -W 5 {there}")
    outside.fail(f"ping -c 2 -W 2 {here}")
    assert "refused" not in outside.fail(fetch.format(here, 80))
    assert outside.succeed(fetch.format(here, 8003)).strip() == "welcome"
    knocks = home.seen(lambda packet: packet.protocol == TCP and packet.operation == _SYN)
    assert {knock.destination_port for knock in knocks if str(knock.source) == there} == {8003}
    echoes = home.seen(lambda packet: packet.protocol == ICMP and packet.operation == 8)
    assert {str(echo.source) for echo in echoes} == {here}

    box.firewall.rules = ()
    outside.succeed(f"ping -c 2 -W 5 {here}")
