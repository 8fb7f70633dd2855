"""Networks as they are, on the lab's switch: a provider is found and fetched from, whatever its host has.

Both hosts are ports of a segment for programs of this host (`lab.host_port`); bridges, tunnels and addresses
are made inside of their namespaces, with `ip`.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.net.hostport import HostPort, refusal
from lab.topology import Lab
from phase.release.keys import ReleaseKeys
from phase.release.repository import Repository

PORT = 8080
_BRIDGE = "link add {0} type bridge; address add {1} dev {0}; link set {0} up"


class Lan:
    """A provider and a machine that looks for one, on one segment."""

    def __init__(self, lab: Lab, work: Path) -> None:
        lan = lab.segment("lan")
        self.provider, self.asker = lab.host_port("provider", lan), lab.host_port("asker", lan)
        self.work = work
        (work / "kernel").write_bytes(b"kernel" * 10_000)
        made = Repository.create(work / "repository", keys=ReleaseKeys.from_seed("interfaces"))
        made.add("stable", "x86_64", {"kernel": work / "kernel"}, release="1.0.0")
        made.publish()

    def serving(self, *options: str) -> Any:
        """A provider with nothing but what everybody has who types `phase serve`."""
        words = ["-m", "phase", "serve", "--artifacts", str(self.work / "repository"), *options]
        return self.provider.running(sys.executable, *words, "--port", str(PORT))

    def status(self) -> dict[str, Any]:
        """What the provider says of its multicast DNS."""
        url = f"http://127.0.0.1:{PORT}/status"
        said = self.provider.run("curl", "-sS", "--retry", "20", "--retry-connrefused", url)
        found: dict[str, Any] = json.loads(said)["mdns"]
        return found

    def answers_on(self, *names: str) -> list[dict[str, Any]]:
        """Wait until it answers on exactly these interfaces."""
        end = time.monotonic() + 30
        while True:
            told: list[dict[str, Any]] = self.status()["interfaces"]
            if sorted(each["name"] for each in told if each["state"] == "answering") == sorted(names):
                return told
            assert time.monotonic() < end, told
            time.sleep(0.2)

    def found(self) -> list[str]:
        """The addresses that the asker finds."""
        words = ("-m", "phase", "discover", "--arch", "x86_64", "--timeout", "4", "--json")
        return [json.loads(line)["url"] for line in self.asker.run(sys.executable, *words).splitlines()]

    def fetched(self) -> None:
        """The asker gets the release, from whom it finds, within a minute."""
        out = self.work / "fetched"
        shutil.rmtree(out, ignore_errors=True)
        root = self.work / "repository" / "metadata" / "1.root.json"
        words = ("--root", str(root), "--output", str(out), "--arch", "x86_64", "--timeout", "40")
        self.asker.run(sys.executable, "-m", "phase", "fetch", *words)
        (blob,) = (out / "blobs" / "sha256").iterdir()
        assert blob.read_bytes() == (self.work / "kernel").read_bytes()


def ip(port: HostPort, lines: str) -> None:
    """Commands of `ip` there, separated by semicolons."""
    for line in lines.split(";"):
        port.run("ip", *line.split())


def address(port: HostPort) -> str:
    return str(port.address.ip)


@pytest.fixture
def lan(lab: Lab, tmp_path: Path) -> Lan:
    if why := refusal():
        pytest.skip(why)
    return Lan(lab, tmp_path)


@pytest.mark.lab(vcpus=0.3)
def test_two_hosts_with_bridges(lan: Lan) -> None:
    """Docker's and libvirt's bridges on both, with the same addresses."""
    for port in (lan.provider, lan.asker):
        ip(port, _BRIDGE.format("docker0", "172.17.0.1/16"))
        ip(port, _BRIDGE.format("virbr0", "192.168.122.1/24"))
    with lan.serving("--no-dht"):
        lan.answers_on("docker0", "eth0", "virbr0")
        found = lan.found()
        assert found[0] == f"http://{address(lan.provider)}:{PORT}"
        assert not [url for url in found if "172.17." in url or "192.168.122." in url]
        lan.fetched()


@pytest.mark.lab(vcpus=0.3)
def test_an_interface_that_comes_up_after_the_provider(lan: Lan) -> None:
    ip(lan.provider, "link set eth0 down")
    with lan.serving("--no-dht"):
        lan.answers_on("lo")
        ip(lan.provider, "link set eth0 up")
        lan.answers_on("eth0")
        lan.fetched()


@pytest.mark.lab(vcpus=0.3)
def test_an_address_that_changes_while_it_serves(lan: Lan) -> None:
    old = lan.provider.address
    new = f"{old.network[-30]}/{old.network.prefixlen}"
    with lan.serving("--no-dht"):
        lan.answers_on("eth0")
        ip(lan.provider, f"address del {old} dev eth0; address add {new} dev eth0")
        end = time.monotonic() + 20
        while str(old.network[-30]) not in lan.status()["interfaces"][0]["addresses"]:
            assert time.monotonic() < end
            time.sleep(0.2)
        found = lan.found()
        assert f"http://{old.network[-30]}:{PORT}" in found
        assert f"http://{old.ip}:{PORT}" not in found
        lan.fetched()


def _link_local(lan: Lan) -> str:
    for port in (lan.provider, lan.asker):
        ip(
            port,
            "address flush dev eth0; link set eth0 down; link set eth0 addrgenmode eui64; link set eth0 up",
        )
    return "fe80::"


def _unique_local(lan: Lan) -> str:
    for number, port in enumerate((lan.provider, lan.asker), 1):
        ip(port, f"address flush dev eth0 scope global; address add fd00:5::{number}/64 dev eth0 nodad")
    return "fd00:5::1"


@pytest.mark.parametrize("addresses", [_link_local, _unique_local])
@pytest.mark.lab(vcpus=0.3)
def test_ipv6_only(lan: Lan, addresses: Callable[[Lan], str]) -> None:
    """No IPv4 on either; with link-local addresses alone, and with a network of their own."""
    wanted = addresses(lan)
    with lan.serving("--no-dht"):
        lan.answers_on("eth0")
        found = lan.found()
        assert found[0].startswith(f"http://[{wanted}"), found
        lan.fetched()


@pytest.mark.lab(vcpus=0.3)
def test_a_tunnel_beside_the_lan(lan: Lan) -> None:
    """A point-to-point link, as a VPN has it: its address is not told to the LAN."""
    for number, port in enumerate((lan.provider, lan.asker), 1):
        ip(port, "tuntap add tun0 mode tun; link set tun0 multicast off; link set tun0 up")
        ip(port, f"address add 10.8.0.{number} peer 10.8.1.{number}/32 dev tun0")
    with lan.serving("--no-dht"):
        lan.answers_on("eth0")
        assert not [url for url in lan.found() if "10.8." in url]
        lan.fetched()


@pytest.mark.lab(vcpus=0.3)
def test_an_address_with_a_zone_is_bound(lan: Lan) -> None:
    ip(lan.provider, "address add fe80::7/64 dev eth0 nodad")
    with lan.serving("--no-dht", "--bind", "fe80::7%eth0", "--bind", "127.0.0.1"):
        lan.answers_on("eth0", "lo")
        assert lan.found() == [f"http://[fe80::7%25eth0]:{PORT}"]
        lan.fetched()
