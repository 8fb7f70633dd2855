"""What each machine is told."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from phase.fetch.http import Url, parse_url
from phase.netboot import dhcp, menu
from phase.netboot.errors import NetbootError
from phase.netboot.menu import Menu, Seed
from tests.firmware import HTTP, PXE, asked, message, option

SERVER = IPv4Address("192.0.2.1")
SEEDS = {"x86_64": Seed(b"MZ1", True), "arm64": Seed(b"MZ2", False)}
IPXE = option(77, b"iPXE")


def told(
    number: int,
    name: bytes = PXE,
    more: bytes = b"",
    *,
    url: str = "http://192.0.2.7:8080",
    ipxe: tuple[str, ...] = (),
    tftp: bool = True,
) -> str | None:
    question = dhcp.parse(message(asked(1, number, name, more)))
    assert question is not None
    return Menu(parse_url(url), "seed", SEEDS, dict.fromkeys(ipxe, b"MZ"), tftp=tftp).told(question, SERVER)


def test_each_firmware_is_told_what_it_can_fetch() -> None:
    assert told(7) == told(9) == "x86_64/boot.efi"
    assert told(11) == "arm64/boot.efi"
    assert told(16, HTTP) == "http://192.0.2.7:8080/seed/x86_64/boot.efi"
    assert told(19, HTTP) == "http://192.0.2.7:8080/seed/arm64/boot.efi"
    assert told(0, PXE, IPXE) == told(7, PXE, IPXE) == "http://192.0.2.7:8080/seed/x86_64/boot.ipxe"
    assert told(11, PXE, IPXE) is None, "its provider has no script for it"
    assert told(0) is None, "a BIOS starts no seed by itself"


def test_ipxe_is_handed_out_where_it_is_given_and_of_use() -> None:
    assert told(0, ipxe=("bios",)) == "bios/ipxe.kpxe"
    assert told(7, ipxe=("bios", "x86_64")) == "x86_64/ipxe.efi"
    assert told(7, ipxe=("bios",)) == "x86_64/boot.efi"
    assert told(11, ipxe=("arm64",)) == "arm64/boot.efi", "iPXE would find no script"
    assert told(7, PXE, IPXE, ipxe=("x86_64",)) == "http://192.0.2.7:8080/seed/x86_64/boot.ipxe"


def test_without_tftp_only_http_is_told() -> None:
    assert told(7, tftp=False) is None
    assert told(16, HTTP, tftp=False) is not None
    assert told(7, PXE, IPXE, tftp=False) is not None


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.9.9.9"])
def test_a_provider_of_this_machine_is_told_by_the_address_that_others_know(host: str) -> None:
    assert told(16, HTTP, url=f"http://{host}:8080") == "http://192.0.2.1:8080/seed/x86_64/boot.efi"


def test_other_names_are_told_as_they_are() -> None:
    assert (
        told(16, HTTP, url="http://boot.example.org/a") == "http://boot.example.org/a/seed/x86_64/boot.efi"
    )
    long = "http://boot.example.org/" + "a" * 300
    assert told(16, HTTP, url=long) is None, "no option holds it"


def test_the_table_has_what_is_told() -> None:
    table = Menu(parse_url("http://a"), "seed", SEEDS, {"bios": b"x", "x86_64": b"MZ"}).files()
    assert table == {
        "x86_64/boot.efi": b"MZ1",
        "arm64/boot.efi": b"MZ2",
        "bios/ipxe.kpxe": b"x",
        "x86_64/ipxe.efi": b"MZ",
    }


def test_a_program_is_one(tmp_path: Path) -> None:
    file = tmp_path / "ipxe"
    with pytest.raises(NetbootError, match="cannot be read"):
        menu.program("bios", file)
    file.write_bytes(b"")
    with pytest.raises(NetbootError, match="has 0 bytes"):
        menu.program("bios", file)
    file.write_bytes(b"\xea")
    assert menu.program("bios", file) == b"\xea"
    with pytest.raises(NetbootError, match="no UEFI program"):
        menu.program("x86_64", file)


def test_a_seed_is_fetched_again_when_its_manifest_changes(tmp_path: Path) -> None:
    place = tmp_path / "seed" / "x86_64"
    place.mkdir(parents=True)
    (place / "boot.efi").write_bytes(b"MZ1")
    with site(tmp_path) as (url, asked):
        (place / "manifest.json").write_bytes(b"1")
        first = menu.fetch(url, "seed", ("x86_64", "arm64"))
        assert {arch: seed.image for arch, seed in first.items()} == {"x86_64": b"MZ1"}
        del asked[:]
        assert menu.fetch(url, "seed", ("x86_64",), first) == first
        assert asked == ["/seed/x86_64/manifest.json"]
        (place / "boot.efi").write_bytes(b"MZ2")
        (place / "manifest.json").write_bytes(b"2")
        assert menu.fetch(url, "seed", ("x86_64",), first)["x86_64"].image == b"MZ2"
        (place / "boot.efi").write_bytes(b"ELF")
        (place / "manifest.json").write_bytes(b"3")
        with pytest.raises(NetbootError, match="is no UEFI program"):
            menu.fetch(url, "seed", ("x86_64",), first)


@contextlib.contextmanager
def site(directory: Path) -> Iterator[tuple[Url, list[str]]]:
    """A web server of a directory; its address, and what it was asked for."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(directory))

        def log_message(self, *_: object) -> None:
            asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield parse_url(f"http://127.0.0.1:{server.server_port}"), asked
        finally:
            server.shutdown()
            thread.join()
