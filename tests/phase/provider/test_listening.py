"""Where a provider listens: names, zones, both IP versions, and errors that name the thing."""

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from phase.provider import serve
from phase.provider.errors import ProviderError
from phase.provider.listening import hosts, listen, urls
from tests.networks import cable
from tests.networks import hosts as machines
from tests.phase.provider.conftest import Publish


def closed(*binds: str) -> list[str]:
    sockets = listen(binds, 0)
    found = hosts(sockets)
    assert len({each.getsockname()[1] for each in sockets}) == 1
    for each in sockets:
        each.close()
    return found


def test_everything_is_both_ip_versions() -> None:
    assert closed() == ["0.0.0.0", "::"]
    assert closed("::") == ["0.0.0.0", "::"]
    assert closed("0.0.0.0", "::") == ["0.0.0.0", "::"]
    assert closed("0.0.0.0") == ["0.0.0.0"]


def test_names_and_several_addresses() -> None:
    assert "127.0.0.1" in closed("localhost")
    assert closed("127.0.0.1", "127.0.0.2", "::1", "[::1]") == ["127.0.0.1", "127.0.0.2", "::1"]


def test_urls() -> None:
    sockets = listen(["127.0.0.1", "::1"], 0)
    port = sockets[0].getsockname()[1]
    assert urls(sockets, "http") == [f"http://127.0.0.1:{port}", f"http://[::1]:{port}"]
    for each in sockets:
        each.close()


def test_a_socket_for_both_versions_is_told_as_such() -> None:
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as made:
        assert hosts([made]) == ["0.0.0.0", "::"]


@pytest.mark.parametrize(
    ("bind", "message"),
    [
        ("192.0.2.77", "cannot listen on 192.0.2.77 port 0: Cannot assign requested address"),
        ("no-such-host.invalid", "cannot listen on 'no-such-host.invalid'"),
        ("fe80::1%nope0", "cannot listen on 'fe80::1%nope0'"),
        ("", "cannot listen on ''"),
        ("x" * 300, "cannot listen on 'xxx"),
    ],
)
def test_what_cannot_be_listened_on_is_named(bind: str, message: str) -> None:
    with pytest.raises(ProviderError) as caught:
        listen([bind], 0)
    assert message in str(caught.value)
    assert caught.value.hint


def test_a_port_that_is_taken() -> None:
    (first,) = listen(["127.0.0.1"], 0)
    port = first.getsockname()[1]
    with first, pytest.raises(ProviderError, match=f"cannot listen on 127.0.0.1 port {port}"):
        # The second socket is closed again.
        listen(["127.0.0.2", "127.0.0.1"], port)
    listen(["127.0.0.2"], port)[0].close()


def test_a_link_local_address_needs_its_zone_and_has_it() -> None:
    """In a network of its own: `fe80::1` is there on one interface."""
    code = (
        "from phase.provider.errors import ProviderError\n"
        "from phase.provider.listening import hosts, listen, urls\n"
        "made = listen(['fe80::1%eth0'], 8080)\n"
        "print(hosts(made), urls(made, 'http'))\n"
        "try: listen(['fe80::1'], 8081)\n"
        "except ProviderError as error: print(error, error.hint)\n"
    )
    with machines(2) as (one, other):
        cable(one, "eth0", other, "eth0")
        for host in (one, other):
            host.ip("link set eth0 addrgenmode none", "link set eth0 up")
        one.ip("address add fe80::1/64 dev eth0 nodad")
        done = one.python("-c", code)
        said, _ = done.communicate(timeout=60)
    assert said.splitlines()[0] == "['fe80::1%eth0'] ['http://[fe80::1%eth0]:8080']"
    assert "--bind fe80::1%eth0" in said.splitlines()[1]


async def test_it_serves_both_ip_versions_on_one_port(publish: Publish) -> None:
    stop = asyncio.Event()
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        serve(publish(), bind=["127.0.0.1", "::1"], port=0, mdns=False, ready=port.set_result, stop=stop)
    )
    for host in ("127.0.0.1", "::1"):
        reader, writer = await asyncio.open_connection(host, await port)
        writer.write(b"GET /health HTTP/1.0\r\n\r\n")
        assert b"200 OK" in await reader.read()
        writer.close()
    stop.set()
    await task


def test_the_command_says_where_it_listens(publish: Publish, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "phase", "serve", "--artifacts", str(publish()), "--port", "0"]
    words += ["--no-mdns", "--no-dht"]
    with subprocess.Popen(
        [*words, "--bind", "127.0.0.1", "--bind", "::1"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.terminate()
    assert "on http://127.0.0.1:" in line
    assert " and http://[::1]:" in line
    done = subprocess.run([*words, "--bind", "192.0.2.77"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "cannot listen on 192.0.2.77" in done.stderr
