"""What each mode keeps a seed from: looked at from outside, by what it did and whom it asked."""

import socket
from pathlib import Path
from typing import Any

import pytest

from fixtures.socks import Socks
from phase.boot.policy import RESTART_LASTING
from tests.phase.boot.conftest import Asked, Boot, Publish, Serve, nearby


def test_private_mode_gets_everything_through_tor(
    boot: Boot, publish: Publish, serve: Serve, proxy: Socks, tor: str
) -> None:
    publish()
    url = serve()
    code, asked = boot(url, words=f"phase.mode=private phase.tor={tor}")
    assert (code, asked.started) == (0, [True])
    assert "phase.mode=private" in asked.loaded[0][0].split()
    host, _, port = url.removeprefix("http://").partition(":")
    assert {*proxy.asked} == {(host, int(port))}


def test_in_private_mode_no_name_server_hears_of_a_provider(
    boot: Boot, publish: Publish, serve: Serve, proxy: Socks, tor: str
) -> None:
    publish()
    host, _, port = serve().removeprefix("http://").partition(":")
    onion = f"{'a' * 56}.onion"
    proxy._names[onion] = (host, int(port))
    assert boot(f"http://{onion}", words=f"phase.mode=private phase.tor={tor}")[0] == 0
    assert {*proxy.asked} == {(onion, 80)}


def test_private_mode_without_tor_fetches_nothing_and_says_why(
    boot: Boot, publish: Publish, serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    publish()
    boot.machine.nearby = nearby(serve())
    assert boot(serve(), words="phase.mode=private") == (1, Asked([], []))
    assert boot.machine.searches == []
    said = capfd.readouterr().err
    assert "private mode fetches through Tor alone, and none is named. Name Tor's SOCKS proxy" in said
    # A restart alone changes nothing.
    assert f"phase: next: this machine restarts and tries again in {RESTART_LASTING} s" in said


def test_private_mode_asks_nobody_for_providers(
    boot: Boot, publish: Publish, serve: Serve, tor: str, capfd: pytest.CaptureFixture[str]
) -> None:
    publish()
    boot.machine.nearby = nearby()
    assert boot(words=f"phase.mode=private phase.tor={tor} phase.dht=192.0.2.1:1")[0] == 1
    assert not any(each.mdns or each.dht for each in boot.machine.searches)
    said = capfd.readouterr().err
    assert "private mode asks nobody: name a provider with phase.provider=" in said
    assert "phase.dht= is not used in private mode" in said


def test_tor_that_does_not_get_there_is_said(
    boot: Boot, publish: Publish, tor: str, capfd: pytest.CaptureFixture[str]
) -> None:
    publish()
    assert boot("http://127.0.0.1:9", words=f"phase.mode=private phase.tor={tor} phase.timeout=5")[0] == 1
    assert "not by Tor: the host is unreachable, or is not known" in capfd.readouterr().err


def test_an_images_own_tor_is_waited_for_and_used(
    boot: Boot, publish: Publish, serve: Serve, proxy: Socks
) -> None:
    publish()
    boot.machine.tor, boot.machine.tor_steps = proxy.address, [0, 45, 90]
    code, asked = boot(serve(), words="phase.mode=private")
    assert (code, asked.started) == (0, [True])
    assert proxy.asked
    assert boot.machine.did[:4] == ["tor"] * 4


def test_a_tor_that_finds_no_way_ends_the_boot(
    boot: Boot, publish: Publish, serve: Serve, proxy: Socks, capfd: pytest.CaptureFixture[str]
) -> None:
    publish()
    boot.machine.tor, boot.machine.tor_steps = proxy.address, [10] * 1000
    assert boot(serve(), words="phase.mode=private phase.timeout=5")[0] == 1
    assert "Tor has found no way within the time: it is at 10 %" in capfd.readouterr().err
    assert proxy.asked == []


@pytest.mark.parametrize("words", ["", "phase.mode=local", "phase.mode=private phase.tor={tor}"])
def test_an_images_own_tor_stays_off_where_it_is_not_needed(
    boot: Boot, publish: Publish, serve: Serve, tor: str, words: str
) -> None:
    publish()
    boot.machine.tor = ("127.0.0.1", 9)
    assert boot(serve(), words=words.format(tor=tor))[0] == 0
    assert "tor" not in boot.machine.did


def test_local_mode_asks_no_name_server(
    boot: Boot, publish: Publish, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish()
    asked: list[object] = []
    getaddrinfo = socket.getaddrinfo

    def look_up(host: str, *words: Any, **more: Any) -> Any:
        if not more.get("flags", 0) & socket.AI_NUMERICHOST:
            asked.append(host)
        return getaddrinfo(host, *words, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert boot("http://boot.example.org", words="phase.mode=local phase.mdns=off phase.timeout=5")[0] == 1
    assert "local mode asks no name server for boot.example.org" in capfd.readouterr().err
    assert asked == []


@pytest.mark.parametrize(("mode", "code"), [("local", 0), ("private", 1)])
def test_what_is_kept_counts_in_local_mode_only(
    boot: Boot, publish: Publish, serve: Serve, tor: str, tmp_path: Path, mode: str, code: int
) -> None:
    """Nobody answers; what an earlier boot has kept is there."""
    publish()
    boot.machine.disk = tmp_path / "disk"
    boot.machine.disk.mkdir()
    assert boot(serve())[0] == 0
    boot.machine.etc["allow-offline"] = b""
    assert boot(words=f"phase.mode={mode} phase.tor={tor} phase.timeout=5")[0] == code


def test_local_mode_keeps_and_boots_what_is_near(boot: Boot, publish: Publish, serve: Serve) -> None:
    publish()
    boot.machine.nearby = nearby(serve())
    code, asked = boot(words="phase.mode=local")
    assert code == 0
    assert "phase.mode=local" in asked.loaded[0][0].split()
    assert all(each.mdns for each in boot.machine.searches)
