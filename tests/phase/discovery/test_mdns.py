"""Real multicast DNS, on loopback only."""

import asyncio
import ipaddress
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from queue import SimpleQueue
from time import monotonic

import pytest
from zeroconf import ServiceStateChange

from phase.discovery import MAX_PROVIDERS, Provider, discover, interfaces
from phase.discovery import mdns as browser
from phase.discovery.records import SERVICE
from phase.provider import advertise
from phase.provider.advertise import advertise as run
from phase.provider.metrics import Metrics
from phase.provider.status import Advertisement, status
from phase.provider.store import Store
from phase.release.keys import ReleaseKeys
from phase.release.repository import Repository

# Its own channel for every run: others on this machine may be testing too.
CHANNEL = f"t{secrets.token_hex(4)}"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    (tmp_path / "kernel").write_bytes(b"kernel")
    keys = ReleaseKeys.from_seed("mdns")
    repository = Repository.create(tmp_path / "repository", keys=keys)
    files = {"kernel": tmp_path / "kernel", "initramfs": tmp_path / "kernel"}
    repository.add(CHANNEL, "x86_64", files, release="1")
    repository.publish()
    return repository


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    own = [address for address in interfaces.addresses() if address.ip.startswith("127.")]
    own = own or [interfaces.Address("127.0.0.1", ipaddress.IPv4Network("127.0.0.0/8"))]
    monkeypatch.setattr(browser, "addresses", lambda: own)


def look(timeout: float, gather: float | None) -> list[Provider]:
    return list(discover(CHANNEL, "x86_64", timeout=timeout, gather=gather))


async def until(told: Advertisement) -> None:
    for _ in range(200):
        if told.instances:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(told.problem)


async def test_advertised_found_and_gone(repository: Repository) -> None:
    store, told = Store(repository.directory), Advertisement()
    task = asyncio.create_task(run(store, told, bind="127.0.0.1", port=8099, identity="deadbeef"))
    try:
        await until(told)
        assert told.problem == ""
        assert told.instances == [f"phase-{CHANNEL}-x86_64-deadbeef._phase-image._tcp.local."]
        begun = asyncio.get_running_loop().time()
        found = await asyncio.to_thread(look, 60, 0.0)
        # The first answer ends it, not the timeout.
        assert asyncio.get_running_loop().time() - begun < 50
        assert found == [Provider("http://127.0.0.1:8099", CHANNEL, "x86_64", 1, "mdns", "deadbeef")]
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert told.instances == []
    assert await asyncio.to_thread(look, 0.5, None) == []


async def test_a_new_version_is_told(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advertise, "WATCH_SECONDS", 0.1)
    store, told = Store(repository.directory), Advertisement()
    task = asyncio.create_task(run(store, told, bind="127.0.0.1", port=8099, identity="deadbeef"))
    try:
        await until(told)
        files = {name: repository.directory.parent / "kernel" for name in ("kernel", "initramfs")}
        repository.add(CHANNEL, "x86_64", files, release="2")
        repository.publish()
        for _ in range(50):
            found = await asyncio.to_thread(look, 5, 0.0)
            if [provider.version for provider in found] == [2]:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(found)
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_provider_sees_others_and_sees_them_go(repository: Repository) -> None:
    store, told, others = Store(repository.directory), Advertisement(), Advertisement()
    task = asyncio.create_task(run(store, told, bind="127.0.0.1", port=8099, identity="deadbeef"))
    other = asyncio.create_task(run(store, others, bind="127.0.0.1", port=8098, identity="cafecafe"))
    name = f"phase-{CHANNEL}-x86_64-cafecafe.{SERVICE}"

    async def seen(wanted: bool) -> None:
        while (name in told.seen) is not wanted:
            await asyncio.sleep(0.05)

    try:
        await asyncio.wait_for(seen(True), 30)
        assert name in status(store, Metrics(), told, now=0).mdns.seen
        other.cancel()
        await asyncio.wait([other])
        await asyncio.wait_for(seen(False), 30)
    finally:
        for each in (task, other):
            each.cancel()
        await asyncio.wait([task, other])


def test_a_flood_of_neighbours_takes_no_memory() -> None:
    told = Advertisement()
    for number in range(10 * advertise.MAX_SEEN):
        advertise.note(told, f"{number}.{SERVICE}", ServiceStateChange.Added)
    assert len(told.seen) == advertise.MAX_SEEN


def test_nothing_is_left_behind() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    threads, before = threading.active_count(), descriptors()
    assert look(0.3, None) == []
    assert threading.active_count() == threads
    assert descriptors() == before
    search = discover(CHANNEL, "x86_64", urls=["http://a"], timeout=5)
    next(search)
    assert isinstance(search, Generator)
    search.close()
    assert threading.active_count() == threads


class _Told:
    """A local network that tells of these, and then of nothing."""

    def __init__(self, *urls: str) -> None:
        self._found = [Provider(url, CHANNEL, "x86_64", None, "mdns", "") for url in urls]

    def __call__(self, channel: str, arch: str, queue: object) -> "_Told":
        return self

    def __enter__(self) -> "_Told":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def next(self, end: float) -> Provider | None:
        return self._found.pop(0) if self._found else None


def test_who_answers_for_many_is_not_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [f"http://10.0.0.66:{port}" for port in range(1, 65)]
    monkeypatch.setattr(browser, "Browser", _Told(*many, "http://10.0.0.7:8080"))
    assert [found.url for found in look(1, None)] == [*many[:2], "http://10.0.0.7:8080"]


def test_those_that_were_of_no_use_come_last(monkeypatch: pytest.MonkeyPatch) -> None:
    useless = [f"http://10.0.0.{number}:8080" for number in range(100, 120)]
    monkeypatch.setattr(browser, "Browser", _Told(*useless, "http://10.0.0.7:8080"))
    found = [one.url for one in discover(CHANNEL, "x86_64", timeout=1, last=set(useless))]
    assert found == ["http://10.0.0.7:8080", *useless[: MAX_PROVIDERS - 1]]


def test_a_flood_of_names_is_not_listened_to() -> None:
    names: SimpleQueue[str | Provider] = SimpleQueue()
    with browser.Browser(CHANNEL, "x86_64", names) as search:
        for number in range(10 * browser.MAX_KNOWN):
            search._on_change(search._zeroconf, "", f"{number}.{SERVICE}", ServiceStateChange.Added)
        assert names.qsize() <= browser.MAX_WAITING
        assert len(search._known) <= browser.MAX_KNOWN
        # Of those that would cost a question each, a bounded number waits.
        assert search.next(monotonic() + 0.2) is None
        assert len(search._later) <= browser.MAX_LATER


def test_changes_of_one_name_hide_no_other() -> None:
    names: SimpleQueue[str | Provider] = SimpleQueue()
    with browser.Browser(CHANNEL, "x86_64", names) as search:
        for _ in range(10 * browser.MAX_WAITING):
            search._on_change(search._zeroconf, "", f"evil.{SERVICE}", ServiceStateChange.Updated)
        search._on_change(search._zeroconf, "", f"honest.{SERVICE}", ServiceStateChange.Added)
        assert [names.get_nowait() for _ in range(names.qsize())] == [f"evil.{SERVICE}", f"honest.{SERVICE}"]


async def test_a_flood_of_one_host_hides_nobody(repository: Repository) -> None:
    """Three hundred providers that are none, each whole, told of again and again."""
    command = [sys.executable, "-m", "fixtures.hostile.flood", "--bind", "127.0.0.2"]
    command += ["--channel", CHANNEL, "--arch", "x86_64", "--records", "300"]
    flood = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert flood.stdout is not None
    try:
        assert "flooding" in await asyncio.to_thread(flood.stdout.readline)
        store, told = Store(repository.directory), Advertisement()
        task = asyncio.create_task(run(store, told, bind="127.0.0.1", port=8099, identity="deadbeef"))
        try:
            await until(told)
            found = await asyncio.to_thread(look, 10, None)
        finally:
            task.cancel()
            await asyncio.wait([task])
    finally:
        flood.terminate()
        flood.communicate(timeout=60)
    assert "deadbeef" in {one.id for one in found}, found
    assert len({one.id for one in found}) == 2
