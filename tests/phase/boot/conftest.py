"""A seed on a machine made of files; only the kernel it would start is not there.

`kexec` is replaced by a note of what it was asked: on this host it would start that kernel.
"""

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

from phase import arch
from phase.boot import cache, efi, kexec, main
from phase.boot.cache import Cache
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


def kernel(of: str) -> bytes:
    """Something with a kernel's header."""
    offset, magic = HEADS[of]
    image = bytearray(os.urandom(3 << 20))
    image[offset : offset + len(magic)] = magic
    return bytes(image)


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
def boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, Asked]]:
    """Run the seed's program on a machine made of files; returns its exit code and what it did."""
    etc, run = tmp_path / "etc", tmp_path / "run"
    etc.mkdir()
    run.mkdir()
    monkeypatch.setattr(main, "_ETC", str(etc))
    monkeypatch.setattr(main, "_RUN", str(run))
    monkeypatch.setattr(main, "_INITRD", str(run / "initrd"))
    monkeypatch.setattr(main, "_CACHE", str(run / "cache"))
    monkeypatch.setattr(cache, "find", lambda: None)
    monkeypatch.setattr(efi, "available", lambda: False)
    (etc / "build-time").write_text("0\n")
    (run / "net").write_text("eth0 10.0.0.2\n")

    def boot(*urls: str, root: str = "r", words: str = "") -> tuple[int, Asked]:
        asked = Asked([], [])
        (etc / "root.json").write_bytes((tmp_path / root / "metadata" / "1.root.json").read_bytes())
        (tmp_path / "cmdline").write_text(
            f"console=ttyS0 root=/dev/evil phase.timeout=1 phase.provider={','.join(urls)} {words}\n"
        )
        read = main._read
        monkeypatch.setattr(
            main,
            "_read",
            lambda path, **hint: read(
                str(tmp_path / "cmdline") if path == "/proc/cmdline" else path, **hint
            ),
        )

        def load(
            self: object, file: int, head: bytes, kernel: tuple[int, int], initrd: int, line: str
        ) -> None:
            assert os.pread(file, len(head), kernel[0]) == head
            assert os.fstat(file).st_size == initrd
            asked.loaded.append((line, os.pread(file, kernel[1], kernel[0])))

        def start() -> None:
            asked.started.append(True)
            raise _DoneError

        monkeypatch.setattr(main._Boot, "load", load)
        monkeypatch.setattr(kexec, "start", start)
        try:
            return main.main(), asked
        except _DoneError:
            return 0, asked

    return boot


class _DoneError(BaseException):
    """The next kernel would run now."""


Boot = Callable[..., tuple[int, Asked]]
Publish = Callable[..., Repository]
Serve = Callable[..., str]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache in a directory, mounted as the machine would a disk."""
    directory = tmp_path / "disk"
    directory.mkdir()

    def mount(device: str, at: str, *, writable: bool) -> Cache:
        return Cache(directory, writable=writable)

    monkeypatch.setattr(cache, "find", lambda: "/dev/disk")
    monkeypatch.setattr(cache, "mount", mount)
    monkeypatch.setattr(cache, "unmount", lambda _: None)
    return directory
