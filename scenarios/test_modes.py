"""What each mode promises, looked at from outside: every frame on the segment, every byte of the disk."""

import contextlib
import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from boot import images, tree
from lab.marks import Mark
from lab.net.advertiser import Advertiser
from lab.net.hostport import HostPort, refusal
from lab.net.packet import UDP, Packet, parse
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
_IPV6, _DHCP, _DNS, _MDNS, _TOR = 0x86DD, 67, 53, 5353, 9050
#: Seconds in which a service that should be silent could speak.
LISTEN = 20


@pytest.fixture
def loop(lab: Lab, record: Record, release: Release, arch: str, tmp_path: Path) -> Loop:
    return Loop(lab, record, release, arch, tmp_path)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """A disk that a seed would keep releases on, in another mode."""
    path = tmp_path / "cache.ext4"
    path.touch()
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-L", "phase-cache", path, "256M"], check=True)
    return Disk(path, access="read-write")


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
        # From another machine's place on the segment.
        for what in (f"ping -c 2 -W 2 {address}", f"curl -sS -m 5 http://{address}:{PORT}/health"):
            assert not _succeeds(proxy, what), what
    speaks_only_with(client, loop.lan, proxy)
    own = bytes.fromhex(client.spec.cards[0].mac.replace(":", ""))
    for frame in sent(client, loop.lan):
        assert own not in frame, parse(frame)
    assert shell.succeed("cat /var/lib/phase/identity.json 2>/dev/null || echo none") == "none"
    assert shell.succeed("netstat -lntu | grep -vc '^Proto\\|^Active' || true") == "0"
    # Completed writes, the fifth number, since this kernel has started.
    assert shell.succeed("awk '{ print $5 }' /sys/block/vda/stat") == "0"
    host_name = shell.succeed("hostname")
    assert host_name == f"phase-{mark(client, 'kernel2').facts['boot_id']}"[: len(host_name)]
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
    for frame in sent(client, loop.lan):
        packet = parse(frame)
        if packet.protocol not in (None, 2) and packet.source_port != 68:
            relay = packet.destination == port.address.ip and 5000 <= (packet.destination_port or 0) < 8000
            assert relay, str(packet)
    loop.receipt_holds(client)
    loop.report("private mode by Tor", client)


def _passed(client: VM, step: str) -> Mark | None:
    return next((seen for seen in client.marks if (seen.step, seen.outcome) == (step, "ok")), None)


def speaks_only_with(client: VM, segment: Segment, proxy: HostPort) -> None:
    """Beside what an address is got by (DHCP, ARP, IPv6's own), there is Tor's proxy and nobody else."""
    ports = {_DHCP, 68}
    for frame in sent(client, segment):
        packet = parse(frame)
        assert _MDNS not in (packet.source_port, packet.destination_port), str(packet)
        assert _DNS not in (packet.source_port, packet.destination_port), str(packet)
        if packet.protocol is not None and not (packet.protocol == UDP and packet.source_port in ports):
            assert packet.destination == proxy.address.ip or _igmp(packet), str(packet)
        if packet.kind == _IPV6:
            # ICMP for IPv6: solicitations, reports; maybe behind a hop-by-hop header.
            assert frame[20] in (0, 58), frame.hex()


def _igmp(packet: Packet) -> bool:
    return packet.protocol == 2


def _succeeds(port: HostPort, command: str) -> bool:
    done = subprocess.run(port.command(*command.split()), capture_output=True, timeout=60)
    return done.returncode == 0


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
    for frame in sent(client, loop.lan):
        packet = parse(frame)
        assert packet.protocol in (None, 2) or packet.source_port == 68, str(packet)
    client.stop()
    assert hashlib.sha256(disk.path.read_bytes()).digest() == before
