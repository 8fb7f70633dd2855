"""Host in scripts: only what is a host, else the address that the connection came to."""

import asyncio
from pathlib import Path

import pytest

from phase.provider.ipxe import is_host
from tests.phase.provider.conftest import Publish
from tests.phase.provider.running import running


@pytest.mark.parametrize(
    "text",
    [
        "boot.example.org",
        "boot.example.org.",
        "boot",
        "my_host-1:8080",
        "192.0.2.7",
        "192.0.2.7:1",
        "[2001:db8::1]",
        "[::ffff:192.0.2.7]:65535",
        "xn--bcher-kva.example",
    ],
)
def test_what_is_a_host(text: str) -> None:
    assert is_host(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a || shell",
        "${net0/ip}",
        "a/b",
        "user@host",
        "a;b",
        "a..b",
        "-a",
        ".",
        "a:0",
        "a:65536",
        "a:",
        "a:b",
        "a:80:80",
        "999.1.1.1",
        "1.2.3",
        "1.2.3.4.",
        "2001:db8::1",
        "[2001:db8::1",
        "[1.2.3.4]",
        "[fe80::1%eth0]",
        "[]",
        "b\u00fccher.example",
        "a\n",
        "#",
        "a" * 64,
        "a." * 127 + "aa",
    ],
)
def test_what_is_not_a_host(text: str) -> None:
    assert not is_host(text)


@pytest.fixture
def seed(publish: Publish) -> Path:
    return publish(kernel=b"k", initramfs=b"i", channel="seed")


@pytest.mark.parametrize(
    ("version", "hosts", "wanted"),
    [
        ("1.1", ["boot.example.org:81"], "boot.example.org:81"),
        ("1.1", ["a || shell"], None),
        ("1.1", ["${net0/ip}"], None),
        ("1.1", [""], None),
        ("1.0", [], None),
        ("1.0", ["[2001:db8::1]:80"], "[2001:db8::1]:80"),
    ],
)
async def test_host_in_scripts_is_a_host_or_where_the_connection_came_to(
    seed: Path, version: str, hosts: list[str], wanted: str | None
) -> None:
    async with running(seed) as (port, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        lines = [f"GET /seed/x86_64/boot.ipxe HTTP/{version}", *(f"Host: {host}" for host in hosts)]
        writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode())
        answer = (await asyncio.wait_for(reader.read(), 10)).decode()
        writer.close()
    base = f"http://{wanted or f'127.0.0.1:{port}'}/seed/x86_64"
    assert f"kernel {base}/kernel initrd=initramfs" in answer
    assert f"initrd --name initramfs {base}/initramfs\nboot\n" in answer


async def test_two_hosts_are_none(seed: Path) -> None:
    async with running(seed) as (port, _, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"GET /seed/x86_64/boot.ipxe HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n"
        )
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
    assert b"//a/" not in answer
    assert b"//b/" not in answer
