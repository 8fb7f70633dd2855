"""Link-local providers: the zone leads to the interface, and is not sent."""

from pathlib import Path

import pytest

from phase.fetch.errors import ProviderFailedError, UrlError
from phase.fetch.http import Connection
from phase.fetch.url import parse_url
from tests.networks import cable, hosts


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("http://[fe80::1%25eth0]:8080", "fe80::1%eth0"),
        ("http://[fe80::1%eth0]:8080", "fe80::1%eth0"),
        ("http://[fe80::1%2525a]:8080", "fe80::1%25a"),
        ("http://[fe80::1%251]:8080", "fe80::1%1"),
        ("http://[fe80::1%25]:8080", "fe80::1%25"),
    ],
)
def test_a_zone_leads_to_the_interface_and_is_not_sent(text: str, host: str) -> None:
    url = parse_url(text)
    assert (url.host, url.authority) == (host, "[fe80::1]:8080")


@pytest.mark.parametrize(
    "text", ["http://[fe80::1%]:80", "http://[fe80::1%25a%b]", f"http://[fe80::1%{'x' * 16}]"]
)
def test_zones_that_are_none(text: str) -> None:
    with pytest.raises(UrlError):
        parse_url(text)


def test_an_interface_that_is_not_there_is_one_provider_less() -> None:
    connection = Connection(parse_url("http://[fe80::1%25nope0]:8080"))
    with pytest.raises(ProviderFailedError, match="no connection"):
        connection.get("/", deadline=1e9)


def test_it_is_fetched_from_a_link_local_address(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"here")
    ask = (
        "import time\n"
        "from phase.fetch.client import Client\n"
        "with Client(['http://[fe80::1%25eth0]:8080'], timeout=20) as client:\n"
        "    print(client.get('/file', 100).decode())\n"
    )
    with hosts(2) as (one, other):
        cable(one, "eth0", other, "eth0")
        for number, host in enumerate((one, other), 1):
            host.ip("link set eth0 addrgenmode none", "link set eth0 up")
            host.ip(f"address add fe80::{number}/64 dev eth0 nodad")
        words = ("-m", "http.server", "8080", "--bind", "::", "--directory", str(tmp_path))
        serving = one.python("-u", *words)
        try:
            assert serving.stdout is not None
            assert "Serving" in serving.stdout.readline()
            asking = other.python("-c", ask)
            said, _ = asking.communicate(timeout=60)
        finally:
            serving.terminate()
            serving.communicate()
    assert said == "here\n"
