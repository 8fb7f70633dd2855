"""A seed on a machine in memory, and real providers for it."""

import asyncio
import os
import platform
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from aiohttp import web

from fixtures.socks import Socks
from phase import arch
from phase.boot import main
from phase.boot.fake import FakeMachine, StartedError
from phase.boot.machine import Search
from phase.discovery import Provider
from phase.provider.app import make_app
from phase.release.keys import ReleaseKeys
from phase.release.repository import Repository

ARCH = arch.canonical(platform.machine())
OTHER = {"x86_64": "arm64", "arm64": "x86_64"}[ARCH]
HEADS = {"x86_64": (0x202, b"HdrS"), "arm64": (0x38, b"ARM\x64")}


class Asked(NamedTuple):
    """What the seed has done to this machine."""

    #: Command line and kernel, as `kexec_load` would have got them.
    loaded: list[tuple[str, bytes]]
    started: list[bool]


class Boot:
    """Boots one machine after the other; `machine` is what the next boot begins with."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.machine = FakeMachine(ARCH, etc={"build-time": b"0\n"})

    def prepared(self, *urls: str, root: str = "r", words: str = "") -> FakeMachine:
        """The machine, switched on and about to boot; the arguments are those of a call."""
        machine = self.machine
        machine.etc["root.json"] = (self.directory / root / "metadata/1.root.json").read_bytes()
        named = f"phase.provider={','.join(urls)} " if urls else ""
        machine.line = f"console=ttyS0 root=/dev/evil {named}{words}"
        # What a machine forgets when it is switched off.
        machine.did, machine.loaded, machine.searches, machine.slept = [], [], [], []
        os.truncate(machine.initrd, 0)
        return machine

    def __call__(self, *urls: str, root: str = "r", words: str = "") -> tuple[int, Asked]:
        """Boot once.

        Args:
            urls: of `phase.provider=`.
            root: name of the repository that the image trusts.
            words: more of the command line; the machine's clock does not wait, so any timeout is short.

        Returns:
            The program's exit code, 0 where the next kernel was started, and what was asked.
        """
        machine = self.prepared(*urls, root=root, words=words)
        try:
            code = main.main(machine)
        except StartedError:
            code = 0
        return code, Asked(machine.loaded, [True for step in machine.did if step == "start"])


def kernel(of: str) -> bytes:
    """Something with a kernel's header."""
    offset, magic = HEADS[of]
    image = bytearray(os.urandom(3 << 20))
    image[offset : offset + len(magic)] = magic
    return bytes(image)


def nearby(*urls: str) -> Callable[[Search], Iterator[Provider]]:
    """What mDNS finds."""

    def find(search: Search) -> Iterator[Provider]:
        for url in urls:
            yield Provider(url, search.channel, search.arch, None, "mdns", "")

    return find


@pytest.fixture
def publish(tmp_path: Path) -> Callable[..., Repository]:
    """Publish a release, of this architecture unless told otherwise."""

    def publish(
        name: str = "r", keys: str = "ours", release: str = "1.0.0", of: str = ARCH, days_ago: float = 0
    ) -> Repository:
        artifacts = {}
        for artifact, content in (
            ("kernel", kernel(of)),
            ("initramfs", b"initramfs"),
            ("rootfs", os.urandom(5000)),
        ):
            artifacts[artifact] = tmp_path / f"{name}-{artifact}"
            artifacts[artifact].write_bytes(content)
        then = datetime.now(UTC) - timedelta(days=days_ago)
        made = Repository.create(tmp_path / name, keys=ReleaseKeys.from_seed(keys), now=then)
        made.add("stable", ARCH, artifacts, cmdline="quiet root=/dev/signed", release=release)
        made.publish()
        return made

    return publish


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Serve a repository's directory as `phase serve` does; returns the address."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    runners: list[web.AppRunner] = []

    async def start(directory: Path) -> str:
        runners.append(web.AppRunner(make_app(directory)))
        await runners[-1].setup()
        site = web.TCPSite(runners[-1], "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runners[-1].addresses[0][1]}"

    async def settle() -> None:
        """End what still sends to a client that has gone; its connection closes a turn of the loop later."""
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await asyncio.sleep(0.05)

    def serve(name: str = "r") -> str:
        return asyncio.run_coroutine_threadsafe(start(tmp_path / name), loop).result(10)

    yield serve
    for runner in runners:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
    asyncio.run_coroutine_threadsafe(settle(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def boot(tmp_path: Path) -> Iterator[Boot]:
    """Run the seed's program on a machine in memory; returns its exit code and what it did."""
    found = Boot(tmp_path)
    yield found
    found.machine.close()


@pytest.fixture
def proxy() -> Iterator[Socks]:
    """What stands for Tor."""
    with Socks() as found:
        yield found


@pytest.fixture
def tor(proxy: Socks) -> str:
    """Its address, as `phase.tor=` has it."""
    return f"{proxy.address[0]}:{proxy.address[1]}"


Publish = Callable[..., Repository]
Serve = Callable[..., str]


@pytest.fixture
def kept(tmp_path: Path, boot: Boot) -> Path:
    """A cache in a directory, mounted as the machine would a disk."""
    boot.machine.disk = tmp_path / "disk"
    boot.machine.disk.mkdir()
    return boot.machine.disk


@pytest.fixture
def nvram(tmp_path: Path, boot: Boot) -> Path:
    """Variables of the machine's firmware, as files."""
    boot.machine.variables = tmp_path / "nvram"
    boot.machine.variables.mkdir()
    return boot.machine.variables
