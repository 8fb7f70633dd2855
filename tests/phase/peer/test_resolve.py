"""Names become numbers; and of each family one address is bound."""

import asyncio
import socket
from typing import Any

import pytest

from phase.peer import resolve
from phase.peer.address import MAX_HOSTS
from phase.peer.errors import PeerError, UnreachableError
from phase.peer.resolve import binds
from phase.peer.transport import Address

KEY = "ab" * 32
#: What the resolver of a test knows.
NAMES = {
    "one.example": ["192.0.2.1"],
    "two.example": ["192.0.2.2", "2001:db8::2", "192.0.2.2"],
    "far.example": [f"192.0.2.{number}" for number in range(10, 20)],
    "link.example": ["fe80::1%eth0"],
}


@pytest.fixture(autouse=True)
async def names(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Replaces the machine's resolver; what it was asked."""
    asked: list[tuple[str, int]] = []

    async def getaddrinfo(host: str, port: int, *, type: int) -> list[Any]:  # its own name
        assert type == socket.SOCK_DGRAM
        asked.append((host, port))
        if host not in NAMES:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(0, 0, 0, "", (ip, port)) for ip in NAMES[host]]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    return asked


async def hosts(*given: str) -> tuple[str, ...]:
    return (await resolve.resolve(Address(KEY, given))).hosts


async def test_numbers_are_asked_of_nobody(names: list[tuple[str, int]]) -> None:
    assert await hosts("192.0.2.9:1", "[2001:db8::9]:2") == ("192.0.2.9:1", "[2001:db8::9]:2")
    assert names == []


async def test_a_name_has_all_its_addresses_once(names: list[tuple[str, int]]) -> None:
    found = await hosts("two.example:4433", "one.example:1")
    assert found == ("192.0.2.2:4433", "[2001:db8::2]:4433", "192.0.2.1:1")
    assert names == [("two.example", 4433), ("one.example", 1)]


async def test_addresses_are_bounded_for_each_name_and_in_all() -> None:
    assert await hosts("far.example:7") == tuple(f"192.0.2.{number}:7" for number in range(10, 14))
    many = await hosts(*(f"far.example:{port}" for port in range(1, 9)))
    assert len(many) == MAX_HOSTS
    assert many[:5] == (*(f"192.0.2.{number}:1" for number in range(10, 14)), "192.0.2.10:2")


async def test_an_address_of_one_link_means_nothing_to_the_transport() -> None:
    assert await hosts("link.example:1", "192.0.2.9:1") == ("192.0.2.9:1",)


async def test_one_name_that_fails_is_told_only_where_nothing_else_is_known() -> None:
    assert await hosts("none.example:1", "one.example:1") == ("192.0.2.1:1",)
    with pytest.raises(UnreachableError, match=f"{KEY} cannot be reached: none.example has no address"):
        await hosts("none.example:1")
    known = await resolve.resolve(Address(KEY, ("none.example:1",), ("https://relay.example",)))
    assert (known.hosts, known.relays) == ((), ("https://relay.example",))


async def test_a_relay_with_a_certificate_keeps_its_name_and_another_has_one_number() -> None:
    relays = ("https://two.example:8", "http://two.example:8", "http://one.example", "http://none.example")
    found = await resolve.resolve(Address(KEY, ("192.0.2.9:1",), relays))
    assert found.relays == ("https://two.example:8", "http://192.0.2.2:8", "http://192.0.2.1:80")


def test_a_family_that_is_not_listened_on_is_bound_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "_has_ipv6", lambda: True)
    assert binds(()) == ["127.0.0.1:0", "[::1]:0"]
    assert binds(("192.0.2.1:4433",)) == ["192.0.2.1:4433", "[::1]:0"]
    assert binds(("[2001:db8::1]:4434",)) == ["127.0.0.1:0", "[2001:db8::1]:4434"]
    assert binds(("[::]:65535", "0.0.0.0:0")) == ["0.0.0.0:0", "[::]:65535"]


def test_without_ipv6_only_its_any_address_may_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """`[::]` is what commands ask for by themselves; another one was meant."""
    monkeypatch.setattr(resolve, "_has_ipv6", lambda: False)
    assert binds(()) == ["127.0.0.1:0"]
    assert binds(("[::]:4433", "192.0.2.1:4433")) == ["192.0.2.1:4433"]
    with pytest.raises(PeerError, match=r"cannot listen on \[2001:db8::1\]:1: this machine has no IPv6"):
        binds(("[2001:db8::1]:1",))


@pytest.mark.parametrize(
    "listen",
    ["127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:", "[127.0.0.1]:1", "::1:1", "name:1", "127.0.0.1:x"],
)
def test_what_is_no_address_to_listen_on(listen: str) -> None:
    with pytest.raises(PeerError, match="is not an address to listen on"):
        binds((listen,))


@pytest.mark.parametrize(("bound", "has"), [(None, True), (OSError(99, "Cannot assign"), False)])
def test_whether_a_machine_has_ipv6(
    monkeypatch: pytest.MonkeyPatch, bound: OSError | None, has: bool
) -> None:
    class Socket:
        def __init__(self, family: int, kind: int) -> None:
            assert (family, kind) == (socket.AF_INET6, socket.SOCK_DGRAM)

        def __enter__(self) -> "Socket":
            return self

        def __exit__(self, *_: object) -> None: ...

        def bind(self, address: tuple[str, int]) -> None:
            assert address == ("::1", 0)
            if bound is not None:
                raise bound

    monkeypatch.setattr(socket, "socket", Socket)
    assert resolve._has_ipv6() is has
