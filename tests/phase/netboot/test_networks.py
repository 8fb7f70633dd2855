"""`phase netboot` as it runs: real cards, real clients, and other servers beside it."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.networks import Host, cable, hosts

SEED = b"MZ" + os.urandom(1_000_000)
NAME = "x86_64/boot.efi"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """What a provider of a seed answers, as plain files."""
    place = tmp_path / "site" / "seed" / "x86_64"
    place.mkdir(parents=True)
    (place / "boot.efi").write_bytes(SEED)
    (place / "boot.ipxe").write_text("#!ipxe\nboot\n")
    return tmp_path / "site"


def lan(one: Host, other: Host) -> None:
    """A cable between `eth0` of both: 192.0.2.1 and 192.0.2.2."""
    cable(one, "eth0", other, "eth0")
    for number, host in ((1, one), (2, other)):
        host.ip(f"address add 192.0.2.{number}/24 dev eth0", "link set eth0 up")


@contextlib.contextmanager
def running(host: Host, site: Path, *more: str) -> Iterator["subprocess.Popen[str]"]:
    """`phase netboot` on a host, and a provider that hears only that host."""
    with contextlib.ExitStack() as stack:
        here = ("--bind", "127.0.0.1", "--directory", str(site), "8080")
        provider = host.python("-m", "http.server", *here, stderr=subprocess.DEVNULL)
        stack.callback(provider.communicate)
        stack.callback(provider.terminate)
        listens(host)
        words = ("-m", "phase", "netboot", "--provider", "http://127.0.0.1:8080", "--json", *more)
        process = host.python(*words, stderr=subprocess.PIPE)
        stack.callback(process.communicate)
        stack.callback(process.terminate)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield process


def listens(host: Host) -> None:
    end = time.monotonic() + 30
    while not subprocess.run(
        host.command("ss", "-Htln", "sport = :8080"), capture_output=True, check=True
    ).stdout:
        assert time.monotonic() < end
        time.sleep(0.05)


def asks(host: Host, *words: str) -> list[Any]:
    """What a client of `tests.firmware` is told."""
    said, _ = (client := host.python("-m", "tests.firmware", *words)).communicate(timeout=60)
    assert client.returncode == 0
    return [json.loads(line) for line in said.splitlines()]


def test_each_firmware_is_told_its_file_and_no_address(site: Path) -> None:
    with hosts(2) as (server, client):
        lan(server, client)
        with running(server, site):
            (pxe,) = asks(client, "discover", "eth0", "2", "7", "PXEClient")
            assert (pxe["file"], pxe["next"], pxe["server"]) == (NAME, "192.0.2.1", "192.0.2.1")
            assert pxe["given"] == "0.0.0.0"
            assert pxe["from"] == ["192.0.2.1", 67]
            (again,) = asks(client, "again", "192.0.2.1", "7")
            assert (again["file"], again["kind"]) == (NAME, 5)
            # The provider was named by an address of its own machine alone.
            (http,) = asks(client, "discover", "eth0", "2", "16", "HTTPClient")
            assert http["file"] == "http://192.0.2.1:8080/seed/x86_64/boot.efi"
            (ipxe,) = asks(client, "discover", "eth0", "2", "0", "PXEClient", "ipxe")
            assert ipxe["file"] == "http://192.0.2.1:8080/seed/x86_64/boot.ipxe"
            # That is for the server whose address it takes.
            assert asks(client, "discover", "eth0", "1", "7", "PXEClient", "request") == []
            # The provider has no seed for it, and a BIOS starts none.
            assert asks(client, "discover", "eth0", "1", "11", "PXEClient") == []
            assert asks(client, "discover", "eth0", "1", "0", "PXEClient") == []


@pytest.mark.parametrize("lost", ["0", "7"])
@pytest.mark.parametrize(("block", "window"), [("512", "1"), ("1468", "4"), ("1468", "32")])
def test_a_file_arrives_whole(site: Path, block: str, window: str, lost: str) -> None:
    (site / "seed/x86_64/boot.efi").write_bytes(SEED[:40_000] if window == "1" else SEED)
    wanted = (site / "seed/x86_64/boot.efi").read_bytes()
    with hosts(2) as (server, client):
        lan(server, client)
        with running(server, site):
            (read,) = asks(client, "read", "192.0.2.1", NAME, block, window, lost if window != "1" else "0")
    assert read["sha256"] == hashlib.sha256(wanted).hexdigest()
    assert (read["blksize"], read["windowsize"]) == (int(block), int(window))
    assert (read["tsize"], read["timeout"]) == (len(wanted), 1)


def test_other_programs_fetch_it(site: Path, tmp_path: Path) -> None:
    """curl, BusyBox's client, and what both are told of a file that there is not."""
    with hosts(2) as (server, client):
        lan(server, client)
        with running(server, site):
            for number, words in enumerate((
                ("curl", "-sS", "--max-time", "30", "-o", "{}", f"tftp://192.0.2.1/{NAME}"),
                ("curl", "-sS", "--tftp-blksize", "1468", "-o", "{}", f"tftp://192.0.2.1//{NAME}"),
                ("curl", "-sS", "--tftp-no-options", "-o", "{}", f"tftp://192.0.2.1/{NAME}"),
                ("busybox", "tftp", "-g", "-b", "1400", "-r", NAME, "-l", "{}", "192.0.2.1"),
            )):  # fmt: skip
                out = tmp_path / str(number)
                command = client.command(*(word.format(out) for word in words))
                subprocess.run(command, check=True, timeout=60, capture_output=True)
                assert out.read_bytes() == SEED, words
            for name in ("../../../etc/passwd", "etc/passwd", "arm64/boot.efi", "x86_64", "/"):
                command = client.command("curl", "-sS", "--path-as-is", f"tftp://192.0.2.1/{name}")
                done = subprocess.run(command, capture_output=True, text=True, timeout=60)
                assert (done.returncode, done.stdout) == (68, ""), name
            (out := tmp_path / "in").write_bytes(b"x")
            command = client.command("curl", "-sS", "-T", str(out), "tftp://192.0.2.1/x86_64/boot.efi")
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert done.returncode == 69, done.stderr


_SCRIPT = """#!/bin/sh
[ -z "$ip" ] || ip address replace "$ip/24" dev "$interface"
echo "$1 $ip" >>{}
"""
_POOL = """start 192.0.2.50
end 192.0.2.60
interface eth0
lease_file {0}/leases
pidfile {0}/pid
max_leases 5
option subnet 255.255.255.0
option lease 600
"""


def addresses(host: Host, place: Path) -> "subprocess.Popen[str]":
    """BusyBox's DHCP server."""
    (place / "udhcpd.conf").write_text(_POOL.format(place))
    (place / "leases").touch()
    command = host.command("busybox", "udhcpd", "-f", str(place / "udhcpd.conf"))
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, text=True)


def waits(log: Path, *words: str) -> str:
    """Wait until the lines begin with these; the last one."""
    end = time.monotonic() + 30
    while True:
        lines = log.read_text().splitlines() if log.exists() else []
        if [line.split()[0] for line in lines] == list(words):
            return lines[-1]
        assert time.monotonic() < end, lines
        time.sleep(0.05)


@pytest.mark.skipif(shutil.which("busybox") is None, reason="no busybox")
def test_a_dhcp_server_of_the_same_machine_is_not_disturbed(site: Path, tmp_path: Path) -> None:
    """A client gets its address, and renews it by asking that server alone."""
    log, script = tmp_path / "log", tmp_path / "script"
    script.write_text(_SCRIPT.format(log))
    script.chmod(0o755)
    with hosts(2) as (server, client), contextlib.ExitStack() as stack:
        cable(server, "eth0", client, "eth0")
        server.ip("address add 192.0.2.1/24 dev eth0", "link set eth0 up")
        client.ip("link set eth0 up")
        udhcpd = addresses(server, tmp_path)
        stack.callback(udhcpd.wait)
        stack.callback(udhcpd.terminate)
        stack.enter_context(running(server, site))
        words = ("busybox", "udhcpc", "-f", "-i", "eth0", "-s", str(script))
        udhcpc = subprocess.Popen(client.command(*words), stderr=subprocess.DEVNULL)
        stack.callback(udhcpc.wait)
        stack.callback(udhcpc.terminate)
        assert waits(log, "deconfig", "bound").startswith("bound 192.0.2.5")
        udhcpc.send_signal(signal.SIGUSR1)
        assert waits(log, "deconfig", "bound", "renew").startswith("renew 192.0.2.5")
        # Firmware hears both: an address from one, a file from the other.
        told = asks(client, "discover", "eth0", "4", "7", "PXEClient")
        assert sorted((each["given"] != "0.0.0.0", each["file"]) for each in told) == [
            (False, NAME),
            (True, ""),
        ]


_SHARES = """
import socket
heard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
heard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
heard.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
heard.bind(("", 67))
heard.settimeout(20)
while True:
    print(heard.recv(100).decode(), flush=True)
"""
_SAYS = """
import socket
said = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
said.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
said.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
for text, to in (("one", "192.0.2.1"), ("two", "192.0.2.1"), ("all", "255.255.255.255")):
    said.sendto(text.encode(), (to, 67))
"""


def test_what_is_sent_to_another_server_alone_reaches_it(site: Path) -> None:
    with hosts(2) as (server, client), contextlib.ExitStack() as stack:
        lan(server, client)
        other = server.python("-c", _SHARES)
        stack.callback(other.communicate)
        stack.callback(other.terminate)
        # The kernel gives such a datagram to one of two, the one that came last.
        stack.enter_context(running(server, site))
        subprocess.run(client.command(sys.executable, "-c", _SAYS), check=True, timeout=30)
        assert other.stdout is not None
        assert [other.stdout.readline() for _ in range(3)] == ["one\n", "two\n", "all\n"]


def test_only_the_segment_that_is_named_is_answered(site: Path) -> None:
    with hosts(3) as (server, one, other):
        lan(server, one)
        cable(server, "eth1", other, "eth0")
        server.ip("address add 198.51.100.1/24 dev eth1", "link set eth1 up")
        other.ip(
            "address add 198.51.100.2/24 dev eth0", "link set eth0 up", "route add default via 198.51.100.1"
        )
        said = server.phase("netboot", "--provider", "http://127.0.0.1:8080")
        assert "on several segments: eth0 (192.0.2.1/24), eth1 (198.51.100.1/24)" in said
        assert "Say which by --interface." in said
        with running(server, site, "--interface", "eth1") as process:
            assert asks(one, "discover", "eth0", "1", "7", "PXEClient") == []
            (told,) = asks(other, "discover", "eth0", "2", "7", "PXEClient")
            assert told["next"] == "198.51.100.1"
            process.terminate()
            # The kernel would have sent another answer to the segment of its address.
            assert process.communicate()[1].count("asks by PXE") == 1
        with running(server, site, "--bind", "192.0.2.1", "--interface", "eth1") as process:
            for client, address in ((one, "192.0.2.1"), (other, "198.51.100.1")):
                (told,) = asks(client, "discover", "eth0", "2", "7", "PXEClient")
                assert told["next"] == told["server"] == address
                (read,) = asks(client, "read", address, NAME, "1468", "8", "0")
                assert read["sha256"] == hashlib.sha256(SEED).hexdigest()
            process.terminate()
            assert process.wait(30) == 0
            said = process.communicate()[1]
            for card in ("eth0", "eth1"):
                assert f"questions answered on {card}: 1 PXE" in said
                assert f"files on {card}: 1 done" in said


def test_a_reader_from_elsewhere_is_not_answered(site: Path) -> None:
    """An address that is not on the segment may be anybody's whom a forged packet names."""
    with hosts(2) as (server, client):
        lan(server, client)
        client.ip("address add 203.0.113.9/32 dev eth0", "route add 192.0.2.1/32 dev eth0 src 203.0.113.9")
        server.ip("route add 203.0.113.9/32 dev eth0")
        with running(server, site):
            curl = ("curl", "-sS", "--max-time", "3", "-o", os.devnull)
            command = client.command(*curl, f"tftp://192.0.2.1/{NAME}")
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert done.returncode == 28, done.stderr
            command = client.command(*curl, "--interface", "192.0.2.2", f"tftp://192.0.2.1/{NAME}")
            subprocess.run(command, check=True, timeout=60)


def test_another_dhcp_server_that_does_not_share_its_port_is_named(site: Path) -> None:
    taken = (
        "import socket, sys; s = socket.socket(2, 2); s.bind(('', 67)); print(flush=True); sys.stdin.read()"
    )
    with hosts(2) as (server, client):
        lan(server, client)
        holder = server.python("-c", taken, stdin=subprocess.PIPE)
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(AssertionError, match="UDP port 67 on eth0 is in use by a program") as refused:
            running(server, site).__enter__()
        holder.communicate()
        assert "ss -lunp" in str(refused.value)


def test_a_machine_that_asks_without_end_is_not_answered_without_end(site: Path) -> None:
    with hosts(2) as (server, client):
        lan(server, client)
        with running(server, site):
            ((mine, others),) = asks(client, "storm", "eth0", "100")
    # So many at once, and one more in two seconds.
    assert 8 <= mine <= 10
    assert others == 1


def test_readers_that_never_answer_are_left(site: Path) -> None:
    """Four of an address at a time, each told six times; the rest is refused, and then not answered."""
    with hosts(2) as (server, client):
        lan(server, client)
        with running(server, site):
            came = asks(client, "flood", "192.0.2.1", NAME, "30")
            # What was taken is free again.
            (read,) = asks(client, "read", "192.0.2.1", NAME, "1468", "8", "0")
            assert read["sha256"] == hashlib.sha256(SEED).hexdigest()
    begun = [each for each in came if "00030001" in each]
    assert begun == [["00030001"] * 6] * 4
    refused = [each for each in came if "00050000" in each]
    assert 8 <= sum(map(len, refused)) <= 14
    assert [each for each in came if not each]


def test_an_interface_with_another_address_is_answered_from_that(site: Path) -> None:
    with hosts(2) as (server, client):
        lan(server, client)
        with running(server, site):
            server.ip("address del 192.0.2.1/24 dev eth0", "address add 192.0.2.77/24 dev eth0")
            again = ("discover", "eth0", "1", "7", "PXEClient")
            end = time.monotonic() + 30
            while [each["next"] for each in asks(client, *again)] != ["192.0.2.77"]:
                assert time.monotonic() < end
            (read,) = asks(client, "read", "192.0.2.77", NAME, "1468", "8", "0")
            assert read["sha256"] == hashlib.sha256(SEED).hexdigest()


def test_a_new_seed_is_taken_and_a_provider_that_is_gone_changes_nothing(site: Path) -> None:
    with hosts(2) as (server, client):
        lan(server, client)
        # The look is short here; a transfer that began before it would end with what it began with.
        with running(server, site, "--every", "1"):
            newer = b"MZ" + os.urandom(5000)
            (site / "seed/x86_64/boot.efi").write_bytes(newer)
            end = time.monotonic() + 30
            wanted = hashlib.sha256(newer).hexdigest()
            while asks(client, "read", "192.0.2.1", NAME, "1468", "8", "0")[0]["sha256"] != wanted:
                assert time.monotonic() < end


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--provider", "http://127.0.0.1:9"), "http://127.0.0.1:9: "),
        (("--provider", "http://127.0.0.1:9", "--interface", "eth7"), "the interface eth7 is not there"),
        (("--provider", "http://127.0.0.1:9", "--bind", "192.0.2.9"), "There are: eth0 (192.0.2.1/24)."),
        (("--provider", "http://127.0.0.1:9", "--arch", "mips"), "unknown architecture 'mips'"),
        (("--provider", "http://127.0.0.1:9", "--ipxe", "x"), "'x' is not NAME=FILE"),
        (("--provider", "ftp://a"), "Phase does not fetch by ftp"),
    ],
)
def test_what_cannot_be_is_said(words: tuple[str, ...], said: str) -> None:
    with hosts(2) as (server, client):
        lan(server, client)
        assert said in server.phase("netboot", *words)


def test_a_provider_without_a_seed_is_named(site: Path) -> None:
    with hosts(2) as (server, client):
        lan(server, client)
        with pytest.raises(AssertionError, match="has no seed for arm64") as refused:
            running(server, site, "--arch", "arm64").__enter__()
        assert "phase release add" in str(refused.value)


def test_it_needs_a_right() -> None:
    """Said by the number that the kernel gives: a process without the capability."""
    script = "from phase.netboot import cards, sockets; sockets.dhcp(cards.chosen((), ())[0])"
    with hosts(2) as (server, client):
        lan(server, client)
        words = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", script)
        done = subprocess.run(server.command(*words), capture_output=True, text=True, timeout=60)
    assert "CAP_NET_BIND_SERVICE" in done.stderr
