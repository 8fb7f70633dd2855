"""What each mode promises, looked at from outside: every frame on the segment, every byte of the disk."""

import contextlib
import hashlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from boot import images, tree
from lab.marks import Mark
from lab.net.advertiser import Advertiser
from lab.net.hostport import HostPort, refusal
from lab.net.packet import ARP, IPV4, TCP, UDP, Packet, parse
from lab.net.segment import Segment
from lab.plugin import Record
from lab.qemu.command import Disk
from lab.qemu.vm import VM
from lab.topology import Lab
from phase.release import keys as release_keys
from phase.release.repository import Repository
from scenarios.images import CHANNEL, KEYS, SIGNED_CMDLINE, Release
from scenarios.loop import PORT, Loop, mark, serves_health
from scenarios.serving import serving

#: Somebody's addresses, none of whom may hear of the machine.
ELSEWHERE = "192.0.2.1"
#: A name that only Tor's proxy knows.
ONION = f"{'p' * 56}.onion"
_IPV6, _DHCP, _DNS, _TOR = 0x86DD, (68, 67), 53, 9050
_ICMP6, _HOP_BY_HOP = 58, 0
#: Solicitations of routers and neighbours, advertisements of a neighbour, reports of groups (RFC 4861, 2710,
#: 3810): what IPv6 needs on a cable. Nobody is asked for anything else by it.
_IPV6_OWN = {133, 135, 136, 131, 132, 143}
#: Seconds in which a service that should be silent could speak.
LISTEN = 20


@pytest.fixture
def loop(lab: Lab, record: Record, release: Release, arch: str, tmp_path: Path) -> Loop:
    return Loop(lab, record, release, arch, tmp_path)


def sent(machine: VM, segment: Segment) -> list[bytes]:
    """The frames that came out of a machine's card, each with its first bytes."""
    return [
        each.frame for each in segment.traffic() if each.link == machine.name and each.direction == "inbound"
    ]


def signed_with(loop: Loop, words: str) -> Release:
    """The session's release, with more words on its signed command line."""
    repository = Repository.create(loop.work / "other", keys=release_keys.load(KEYS / "lab"))
    artifacts = loop.release.repository.manifest(CHANNEL, loop.arch).artifacts
    files = {name: loop.release.blob(artifact.sha256) for name, artifact in artifacts.items()}
    repository.add(CHANNEL, loop.arch, files, cmdline=f"{SIGNED_CMDLINE} {words}", release="1.0.0")
    repository.publish()
    return Release(loop.work / "other", repository)


@pytest.mark.lab(seconds=70)
def test_local_mode_sends_nothing_beyond_the_segment(loop: Loop) -> None:
    """Routers and name servers are there; far hosts are asked for; the release is signed for more."""
    far = loop.lab.segment("far")
    loop.lab.router("box", loop.lan, far)
    loop.lan.dhcp.options[6] = bytes([192, 0, 2, 53])
    router = Advertiser()
    router.servers = (router.address,)
    loop.lan.switch.add_service(router, "router6")
    loop.release = signed_with(loop, f"phase.mode=internet phase.dht={ELSEWHERE}:8080")
    with loop.provided():
        words = f"phase.mode=local phase.node=open phase.mirror=beta/{loop.arch}"
        words += f" phase.relay=http://{ELSEWHERE}:80"
        words += f" phase.provider=http://boot.example.org,http://{ELSEWHERE}:8080"
        client = loop.boot_vm(words)
        client.wait_mark("job", timeout=240)
        said = client.console.text
        assert "local mode asks no name server for boot.example.org" in said
        assert f"{ELSEWHERE} is beyond this network, where local mode sends nothing" in said
        serves_health(client)
        time.sleep(LISTEN)
    shell = client.shell()
    line = shell.succeed("cat /proc/cmdline").split()
    assert [word for word in line if word.startswith("phase.mode=")] == ["phase.mode=local"]
    assert "default" not in shell.succeed("ip route; ip -6 route")
    assert "nameserver" not in shell.succeed("cat /run/phase/resolv")
    # It would have been so by both.
    assert int(shell.succeed("ip -6 address show scope global | grep -c inet6")) > 0
    shell.wait_until_succeeds("dmesg | grep -q 'phase: node '", timeout=120)
    network = loop.lan.network
    for frame in sent(client, loop.lan):
        packet = parse(frame)
        where = packet.destination
        here = where is None or where in network or where.is_multicast or str(where) == "255.255.255.255"
        assert here, str(packet)
        assert _DNS not in (packet.source_port, packet.destination_port), str(packet)
        if packet.kind == _IPV6:
            to = IPv6Address(frame[38:54])
            assert to.is_multicast or to.is_link_local or to in router.prefix, to
    assert far.seen(lambda packet: packet.source in network) == []
    loop.report("local mode", client)


@contextlib.contextmanager
def tor(loop: Loop, upstream: str) -> Iterator[HostPort]:
    """What stands for Tor, on the segment: a proxy that knows a name."""
    port = loop.lab.host_port("tor", loop.lan)
    words = ("--bind", str(port.address.ip), "--port", str(_TOR), "--name", f"{ONION}={upstream}")
    with port.running(sys.executable, "-m", "fixtures.socks", *words):
        yield port


@pytest.mark.lab(seconds=80)
def test_private_mode_leaves_no_trace(loop: Loop, disk: Disk) -> None:
    """It speaks to Tor alone, answers nobody, shows no address of its own, and writes nothing."""
    if why := refusal():
        pytest.skip(why)
    before = hashlib.sha256(disk.path.read_bytes()).digest()
    words = f"phase.mode=private phase.provider=http://{ONION} phase.node=open phase.mirror={CHANNEL}/arm64"
    provider = loop.lab.host_port("provider", loop.lan)
    with loop.provided(), tor(loop, f"{provider.address.ip}:{PORT}") as proxy:
        client = loop.boot_vm(f"{words} phase.tor={proxy.address.ip}:{_TOR}", disks=(disk,))
        loop.reaches_job(client)
        shell = client.shell()
        assert "phase.mode=private" in shell.succeed("cat /proc/cmdline").split()
        address = shell.succeed("ip -4 -o address show dev eth0 | awk '{ print $4 }'").split("/")[0]
        time.sleep(LISTEN)
        # From another machine's place on the segment. The provider answers, so it is not the tools.
        assert answers(proxy, str(provider.address.ip)) == {"ping": True, "http": True}
        assert answers(proxy, address) == {"ping": False, "http": False}
    speaks_only(client, loop.lan, lambda to: to.protocol == TCP and to.destination == proxy.address.ip)
    own = bytes.fromhex(client.spec.cards[0].mac.replace(":", ""))
    for frame in sent(client, loop.lan):
        assert own not in frame, parse(frame)
    assert shell.succeed("cat /var/lib/phase/identity.json 2>/dev/null || echo none") == "none"
    assert shell.succeed("netstat -lntu | grep -vc '^Proto\\|^Active' || true") == "0"
    # Completed writes, the fifth number, since this kernel has started.
    assert shell.succeed("awk '{ print $5 }' /sys/block/vda/stat") == "0"
    boot_id = str(mark(client, "kernel2").facts["boot_id"])
    assert shell.succeed("hostname") == f"phase-{boot_id[:8]}"
    loop.receipt_holds(client)
    loop.report("private mode", client)
    client.stop()
    assert hashlib.sha256(disk.path.read_bytes()).digest() == before


@contextlib.contextmanager
def tor_network(port: HostPort, place: Path) -> Iterator[str]:
    """A small Tor network of real relays; the name of the onion service in it that leads to the provider."""
    place.mkdir()
    here = str(port.address.ip)
    words = ("--program", images.tor(tree.host_arch()).program, "--bind", here, "--directory", place)
    network = (sys.executable, "-m", "fixtures.tornet", *map(str, words), "--onion", f"{here}:{PORT}")
    with port.running(*network) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("tor on "), line + process.stdout.read()
        yield line.split()[-1]


@pytest.mark.lab(memory=768, seconds=240)
def test_private_mode_boots_by_its_own_tor(loop: Loop) -> None:
    """From an onion service behind a router. Of all that runs on the machine, Tor alone has a way out."""
    if why := refusal():
        pytest.skip(why)
    far = loop.lab.segment("far")
    loop.lab.router("box", loop.lan, far)
    port, place = loop.lab.host_port("relays", far), loop.work / "tor"
    silent = ("--port", str(PORT), "--no-mdns", "--no-dht")
    with serving(loop.release.directory, *silent, port=port), tor_network(port, place) as onion:
        words = f"phase.mode=private phase.timeout=600 phase.provider=http://{onion}"
        client = loop.boot_vm(words, torrc=(place / "torrc").read_text())
        # Not `wait_mark`: an onion service that has only just come may not be found at once.
        client.console.wait(lambda: _passed(client, "job"), "hello job that has passed", timeout=500)
        # The system has no Tor, and so no way out at all.
        asks = f"import socket; socket.create_connection(('{port.address.ip}', {PORT}), 5)"
        assert "Network is unreachable" in client.shell().fail(f'python3 -S -s -c "{asks}" 2>&1')
    assert mark(client, "discover").facts["provider"] == f"http://{onion}"
    speaks_only(
        client,
        loop.lan,
        lambda to: to.destination == port.address.ip and 5000 <= (to.destination_port or 0) < 8000,
    )
    loop.receipt_holds(client)
    loop.report("private mode by Tor", client)


def _passed(client: VM, step: str) -> Mark | None:
    return next((seen for seen in client.marks if (seen.step, seen.outcome) == (step, "ok")), None)


def speaks_only(client: VM, segment: Segment, allowed: Callable[[Packet], bool]) -> None:
    """Beside what an address is got by (ARP, DHCP, IPv6's own, reports of groups), only what is allowed.

    Args:
        client: whose frames are looked at.
        segment: it is on.
        allowed: whether an IPv4 packet is.
    """
    for frame in sent(client, segment):
        packet = parse(frame)
        if packet.kind == IPV4:
            address = packet.protocol == UDP and (packet.source_port, packet.destination_port) == _DHCP
            assert address or _igmp(packet) or allowed(packet), str(packet)
        elif packet.kind == _IPV6:
            assert ipv6_kind(frame) in _IPV6_OWN, frame.hex()
        else:
            assert packet.kind == ARP, str(packet)


def ipv6_kind(frame: bytes) -> int | None:
    """The type of an ICMP message of IPv6, maybe behind a hop-by-hop header; None for what is none."""
    # 14 bytes are Ethernet's, 40 are IPv6's; its seventh names what follows (RFC 8200).
    follows, at = frame[20], 54
    if follows == _HOP_BY_HOP:
        follows, at = frame[at], at + 8 * (frame[at + 1] + 1)
    return frame[at] if follows == _ICMP6 else None


def _igmp(packet: Packet) -> bool:
    return packet.protocol == 2


def answers(port: HostPort, address: str) -> dict[str, bool]:
    """Whether a machine answers a ping, and its provider a question."""
    asks = {
        "ping": f"busybox ping -c 2 -W 2 {address}",
        "http": f"curl -sS -m 5 http://{address}:{PORT}/health",
    }
    return {
        what: subprocess.run(port.command(*words.split()), capture_output=True, timeout=60).returncode == 0
        for what, words in asks.items()
    }


@pytest.mark.lab(vcpus=0.5, seconds=30)
def test_private_mode_without_tor_asks_nobody(loop: Loop, disk: Disk) -> None:
    """A provider is there, and is not even looked for; the reason is on the console."""
    before = hashlib.sha256(disk.path.read_bytes()).digest()
    with loop.provided():
        client = loop.boot_vm("phase.mode=private", disks=(disk,))
        refused = client.wait_mark("init", outcome="failed", timeout=120)
        assert "private mode fetches through Tor alone, and none is named" in str(refused.facts["reason"])
        loop.never_handed_over(client)
        time.sleep(LISTEN)
    speaks_only(client, loop.lan, lambda to: False)
    client.stop()
    assert hashlib.sha256(disk.path.read_bytes()).digest() == before
