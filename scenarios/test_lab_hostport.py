"""Programs of the host on a segment; left out, with the reason, where the host allows no such card."""

import re
import sys
from pathlib import Path

import pytest

from lab.errors import ProductError
from lab.net.faults import Faults
from lab.net.hostport import refusal
from lab.net.nat import FULL_CONE, PORT_RESTRICTED_CONE, RESTRICTED_CONE, SYMMETRIC, Nat
from lab.net.packet import TCP
from lab.topology import Lab
from scenarios import lab_guest

_GUIDE = Path(__file__).parents[1] / "docs/lab/network.md"

#: Tells who sends the number of one of its ports, by that port, what it sees; `relay HOST` has HOST tell it.
_MIRROR = """
import select, socket
ports = {}
for number in (3478, 3479):
    ports[number] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ports[number].bind(("", number))
print("ready", flush=True)
while True:
    for each in select.select(list(ports.values()), [], [])[0]:
        said, came = each.recvfrom(100)
        word, *rest = said.decode().split()
        if word == "relay":
            each.sendto(f"3478 {came[0]} {came[1]}".encode(), (rest[0], 3478))
        else:
            to = (rest[0], int(rest[1])) if rest else came
            ports[int(word)].sendto(f"{to[0]} {to[1]}".encode(), to)
"""
#: From one port, a line each: what a mirror sees, by its other port, by the other mirror; what others see.
_ASK = """
import socket, sys
one, two = sys.argv[1:]
mine = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
mine.bind(("", 5000))
mine.settimeout(2)
for to, port, word in (
    (one, 3478, "3478"),
    (one, 3478, "3479"),
    (one, 3478, f"relay {two}"),
    (one, 3479, "3479"),
    (two, 3478, "3478"),
):
    mine.sendto(word.encode(), (to, port))
    try:
        print(mine.recv(100).decode())
    except TimeoutError:
        print("nothing")
"""
_AVAHI = """[server]
host-name=printer
enable-dbus=no
use-ipv6=no
allow-interfaces=eth0
[publish]
publish-workstation=no
"""
_SERVICE = """<?xml version="1.0" standalone='no'?><!DOCTYPE service-group SYSTEM "avahi-service.dtd">
<service-group><name>Some printer</name>
<service><type>_ipp._tcp</type><port>631</port></service></service-group>
"""
_BROWSE = """
import socket, sys, threading
from zeroconf import IPVersion, ServiceBrowser, Zeroconf
found = threading.Event()
class Seen:
    def add_service(self, zc, kind, name):
        info = zc.get_service_info(kind, name, 5000)
        print(name, info and info.parsed_addresses()[0], info and info.port, flush=True)
        found.set()
    def update_service(self, *_): pass
    remove_service = update_service
zc = Zeroconf(interfaces=[sys.argv[1]], ip_version=IPVersion.V4Only)
browser = ServiceBrowser(zc, "_ipp._tcp.local.", Seen())
found.wait(20)
browser.cancel()
zc.close()
"""


@pytest.fixture(autouse=True)
def _allowed() -> None:
    if why := refusal():
        pytest.skip(why)


@pytest.mark.lab(vcpus=0.6, memory=192)
def test_curl_fetches_from_a_guest(lab: Lab, arch: str, tmp_path: Path) -> None:
    """The host's curl, across a router, from a guest's web server; from nowhere else."""
    lan, desk = lab.segment("lan"), lab.segment("desk")
    lab.router("box", lan, desk)
    kernel, initrd = lab_guest.build(arch, tmp_path)
    vm = lab.vm("server", arch=arch, memory=128, kernel=kernel, initrd=initrd, segments=(lan,))
    vm.start()
    vm.wait_mark("init")
    digest = vm.shell().succeed(
        "mkdir /tmp/www; head -c 300000 /dev/urandom >/tmp/www/file; httpd -h /tmp/www; "
        "sha256sum </tmp/www/file"
    )
    laptop = lab.host_port("laptop", desk)
    address = lab.address(vm, lan)
    there = f"http://{address}/file"
    assert laptop.run("sh", "-c", f"curl -sSf --max-time 60 {there} | sha256sum").strip() == digest.strip()
    asked = lan.seen(lambda packet: packet.protocol == TCP and packet.destination == address)
    assert {packet.source for packet in asked} == {laptop.address.ip}

    desk.link("laptop").to_machine = Faults(loss=1)
    with pytest.raises(ProductError, match="timed out"):
        laptop.run("curl", "-sS", "--max-time", "2", there)
    desk.heal()
    # Of the host's network there is nothing.
    cards = laptop.run("ip", "-brief", "link").splitlines()
    assert [card.split()[0] for card in cards] == ["lo", "eth0"]


@pytest.mark.lab(vcpus=0.2, memory=128)
def test_the_guides_example_runs(lab: Lab) -> None:
    (source,) = re.findall(
        r"```python\n(.*?)```",
        _GUIDE.read_text().partition("## Programs of the host")[2].partition("\n## ")[0],
        re.DOTALL,
    )
    found: dict[str, object] = {}
    exec(compile(source, str(_GUIDE), "exec"), found)  # noqa: S102 - that is what is tried
    example = found["test_curl_asks_the_hosts_own_server"]
    assert callable(example)
    example(lab)
    assert len(lab.host_ports) == 2


@pytest.mark.lab(vcpus=0.2, memory=128)
def test_multicast_passes(lab: Lab, tmp_path: Path) -> None:
    """What Avahi publishes on one card, another mDNS implementation finds on the next."""
    lan = lab.segment("lan")
    one, other = lab.host_port("one", lan), lab.host_port("other", lan)
    (tmp_path / "avahi.conf").write_text(_AVAHI)
    (tmp_path / "printer.service").write_text(_SERVICE)
    # Its files have fixed places: a mount namespace keeps those of the host's own daemon out of the way.
    script = (
        "mount -t tmpfs none /run && mkdir /run/avahi-daemon && mount -t tmpfs none /etc/avahi/services && "
        f"cp {tmp_path}/printer.service /etc/avahi/services/ && "
        f"exec avahi-daemon --file {tmp_path}/avahi.conf --no-drop-root --no-chroot --no-rlimits"
    )
    with one.running("unshare", "--mount", "sh", "-c", script):
        said = other.run(sys.executable, "-c", _BROWSE, str(other.address.ip))
    assert said == f"Some printer._ipp._tcp.local. {one.address.ip} 631\n"
    assert lan.strays() == [], "a group is nobody outside"


#: How many ports others see, and whether their other port and other addresses are heard.
KINDS = {
    "full-cone": (FULL_CONE, 1, (True, True)),
    "restricted-cone": (RESTRICTED_CONE, 1, (True, False)),
    "port-restricted-cone": (PORT_RESTRICTED_CONE, 1, (False, False)),
    "symmetric": (SYMMETRIC, 3, (False, False)),
}


@pytest.mark.lab(vcpus=0.1, memory=128)
@pytest.mark.parametrize(("nat", "ports", "heard"), KINDS.values(), ids=KINDS)
def test_udp_through_each_nat(lab: Lab, nat: Nat, ports: int, heard: tuple[bool, bool]) -> None:
    """As a peer behind it finds out (RFC 5780): it asks what others see, and whom it hears."""
    home, world = lab.segment("home"), lab.segment("world")
    box = lab.router("box", home, world, nat=nat)
    inside = lab.host_port("inside", home)
    one, two = lab.host_port("one", world), lab.host_port("two", world)
    with (
        one.running(sys.executable, "-c", _MIRROR) as first,
        two.running(sys.executable, "-c", _MIRROR) as second,
    ):
        for mirror in (first, second):
            assert mirror.stdout is not None
            assert mirror.stdout.readline() == "ready\n"
        said = inside.run(sys.executable, "-c", _ASK, str(one.address.ip), str(two.address.ip)).splitlines()
    assert tuple(line != "nothing" for line in said[1:3]) == heard
    told = [line.split() for line in (said[0], *said[3:])]
    assert {address for address, _ in told} == {str(box.address("world"))}
    assert len({port for _, port in told}) == ports
