"""The seed's stages against a real provider; only the kernel they would start is not there.

`kexec` is replaced by a note of what it was asked: on this host it would start that kernel.
"""

import asyncio
import json
import os
import platform
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import web

from fixtures.hostile.provider import send
from fixtures.hostile.server import Asked as Request
from fixtures.hostile.server import Server
from phase import arch, discovery, trust
from phase.boot import cache, efi, kexec, main
from phase.boot.cache import Cache
from phase.discovery import Provider
from phase.provider.app import make_app
from phase.release import check
from phase.release.keys import ReleaseKeys
from phase.release.repository import Repository
from phase.trust import floor

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


def test_what_is_signed_is_what_starts(boot: Boot, publish: Publish, serve: Serve) -> None:
    manifest = publish().manifest("stable", ARCH)
    code, asked = boot(serve())
    assert (code, asked.started) == (0, [True])
    ((line, image),) = asked.loaded
    words = line.split()
    assert words[:3] == ["quiet", "root=/dev/signed", "console=ttyS0"]
    assert "root=/dev/evil" not in words
    assert words[-1] == f"phase.rootfs=sha256:{manifest.artifacts['rootfs'].sha256}"
    assert len(image) == manifest.artifacts["kernel"].length


@pytest.mark.parametrize(("mode", "asked"), [("internet", 1), ("local", 0), ("private", 0)])
def test_only_in_internet_mode_is_the_dht_asked(
    boot: Boot, publish: Publish, monkeypatch: pytest.MonkeyPatch, mode: str, asked: int
) -> None:
    publish()
    searches: list[dict[str, Any]] = []

    def discover(*names: str, **options: Any) -> list[Provider]:
        searches.append(options)
        return []

    monkeypatch.setattr(discovery, "discover", discover)
    boot(words=f"phase.dht=192.0.2.1:8080 phase.mdns=off phase.mode={mode}")
    assert [len(each["dht"]) for each in searches] == [asked] * len(searches)
    assert searches
    assert not any(each["mdns"] for each in searches)


def test_a_flipped_bit_starts_nothing(
    boot: Boot, publish: Publish, serve: Serve, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    digest = publish().manifest("stable", ARCH).artifacts["kernel"].sha256
    blob = tmp_path / "r/blobs/sha256" / digest
    content = bytearray(blob.read_bytes())
    content[2 << 20] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(content)
    code, asked = boot(serve())
    assert (code, asked) == (1, Asked([], []))
    assert "chunk 2 of kernel is not the signed one" in capfd.readouterr().err


def test_a_stranger_starts_nothing(
    boot: Boot, publish: Publish, serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    publish()
    publish("strange", keys="a stranger's")
    code, asked = boot(serve("strange"))
    assert (code, asked) == (1, Asked([], []))
    assert "is signed by 0 of" in capfd.readouterr().err


def test_one_liar_does_not_stop_an_honest_one(boot: Boot, publish: Publish, serve: Serve) -> None:
    publish()
    publish("strange", keys="a stranger's")
    code, asked = boot(serve("strange"), serve())
    assert (code, asked.started) == (0, [True])


def test_a_kernel_for_another_machine_starts_nothing(
    boot: Boot, publish: Publish, serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    publish(of=OTHER)
    code, asked = boot(serve())
    assert (code, asked) == (1, Asked([], []))
    assert f"the release's kernel for {ARCH} is an" in capfd.readouterr().err


def test_another_channel_is_not_ours(boot: Boot, publish: Publish, serve: Serve) -> None:
    publish()
    assert boot(serve(), words="phase.channel=testing") == (1, Asked([], []))


def test_the_image_decides_what_expires(
    boot: Boot, publish: Publish, serve: Serve, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    publish(days_ago=10)  # its timestamp held for seven
    url = serve()
    assert boot(url) == (1, Asked([], []))
    assert "timestamp.json expired at" in capfd.readouterr().err
    (tmp_path / "etc/grace-local").write_text("432000\n")
    assert boot(url) == (1, Asked([], [])), "its grace is another mode's"
    assert boot(url, words="phase.mode=local")[0] == 0
    assert '"overdue":"timestamp.json"' in capfd.readouterr().err.replace(": ", ":")
    (tmp_path / "etc/grace-local").write_text("86400\n")
    assert boot(url, words="phase.mode=local") == (1, Asked([], []))


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


def test_a_kept_release_starts_only_where_it_may(
    boot: Boot, publish: Publish, serve: Serve, kept: Path, tmp_path: Path
) -> None:
    publish()
    assert boot(serve())[0] == 0
    assert (kept / "floor.json").exists()
    nobody = "http://127.0.0.1:9"
    assert boot(nobody) == (1, Asked([], []))
    (tmp_path / "etc/allow-offline").touch()
    code, asked = boot(nobody)
    assert (code, asked.started) == (0, [True])


@pytest.mark.parametrize("keys", ["ours", "fresh"])
def test_a_revoked_key_stays_revoked_where_the_release_is_withheld(
    boot: Boot, publish: Publish, serve: Serve, kept: Path, tmp_path: Path, keys: str
) -> None:
    repository = publish()
    digest = repository.manifest("stable", ARCH).artifacts["kernel"].sha256
    assert boot(serve())[0] == 0
    (tmp_path / "r-kernel").write_bytes(kernel(ARCH))
    artifacts = {name: tmp_path / f"r-{name}" for name in ("kernel", "initramfs", "rootfs")}
    repository.add("stable", ARCH, artifacts, cmdline="quiet", release="1.0.1")
    repository.rotate(ReleaseKeys.from_seed(keys))
    repository.publish()
    shutil.copytree(tmp_path / "r/metadata", tmp_path / "withheld/metadata", symlinks=True)
    (tmp_path / "withheld/blobs/sha256").mkdir(parents=True)
    (tmp_path / "etc/allow-offline").touch()
    code, asked = boot(serve("withheld"))
    if keys == "ours":
        # The root is another one, but the keys of the release that is here are still good by it.
        assert code == 0
        assert sha256(asked.loaded[0][1]).hexdigest() == digest
    else:
        assert (code, asked) == (1, Asked([], []))
        # Nor without the root that revokes it, now that it is known to exist.
        (kept / "metadata/2.root.json").unlink()
        assert boot("http://127.0.0.1:9") == (1, Asked([], []))


def test_what_is_kept_is_verified_where_it_is_booted_from(
    boot: Boot, publish: Publish, serve: Serve, kept: Path, tmp_path: Path
) -> None:
    digest = publish().manifest("stable", ARCH).artifacts["kernel"].sha256
    assert boot(serve())[0] == 0
    blob = kept / "blobs/sha256" / digest
    good = blob.read_bytes()
    blob.write_bytes(good[: 1 << 20] + b"?" + good[(1 << 20) + 1 :])
    (tmp_path / "etc/allow-offline").touch()
    assert boot("http://127.0.0.1:9") == (1, Asked([], []))
    # With a provider, the one chunk is fetched again, and kept again.
    code, asked = boot(serve())
    assert code == 0
    assert asked.loaded[0][1] == good
    assert blob.read_bytes() == good


def test_nothing_older_is_taken_again(
    boot: Boot, publish: Publish, serve: Serve, kept: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    repository = publish()
    shutil.copytree(tmp_path / "r", tmp_path / "old", symlinks=True)
    artifacts = {name: tmp_path / f"r-{name}" for name in ("kernel", "initramfs", "rootfs")}
    repository.add("stable", ARCH, artifacts, cmdline="quiet", release="1.0.1")
    repository.publish()
    assert boot(serve())[0] == 0
    assert boot(serve("old")) == (1, Asked([], []))
    assert "was trusted before" in capfd.readouterr().err


@pytest.mark.parametrize("words", ["phase.nowrite", "phase.mode=private", "phase.cache=off"])
def test_nothing_is_kept_where_nothing_may_be(
    boot: Boot, publish: Publish, serve: Serve, kept: Path, words: str
) -> None:
    publish()
    assert boot(serve(), words=words)[0] == 0
    assert not list(kept.rglob("*"))


def test_firmware_remembers_where_no_disk_does(
    boot: Boot, publish: Publish, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[trust.Floor] = []
    monkeypatch.setattr(efi, "available", lambda: True)
    monkeypatch.setattr(efi, "load", lambda: kept[-1] if kept else trust.Floor())
    monkeypatch.setattr(efi, "save", lambda floor, had: kept.append(floor))
    repository = publish()
    shutil.copytree(tmp_path / "r", tmp_path / "old", symlinks=True)
    artifacts = {name: tmp_path / f"r-{name}" for name in ("kernel", "initramfs", "rootfs")}
    repository.add("stable", ARCH, artifacts, cmdline="quiet", release="1.0.1")
    repository.publish()
    assert boot(serve(), words="phase.nowrite")[0] == 0
    assert boot(serve(), words="phase.mode=private")[0] == 0
    assert not kept
    assert boot(serve())[0] == 0
    assert boot(serve("old")) == (1, Asked([], []))


def test_a_disk_cannot_lower_what_the_firmware_remembers(
    boot: Boot, publish: Publish, serve: Serve, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the root, the highest timestamp there can be, and keys that are nobody's."""
    remembered: list[trust.Floor] = []
    monkeypatch.setattr(efi, "available", lambda: True)
    monkeypatch.setattr(efi, "load", lambda: remembered[-1] if remembered else trust.Floor())
    monkeypatch.setattr(efi, "save", lambda floor, had: remembered.append(floor))
    repository = publish()
    shutil.copytree(tmp_path / "r", tmp_path / "old", symlinks=True)
    artifacts = {name: tmp_path / f"r-{name}" for name in ("kernel", "initramfs", "rootfs")}
    repository.add("stable", ARCH, artifacts, cmdline="quiet", release="1.0.1")
    repository.publish()
    assert boot(serve())[0] == 0
    newest = remembered[-1]
    liar = trust.Floor(root=1, timestamp=10**9, snapshot=10**9, keys={"timestamp": ["00"], "snapshot": []})
    floor.save(kept / "floor.json", liar)
    assert boot(serve("old")) == (1, Asked([], []))
    assert remembered[-1] == newest
    assert boot(serve())[0] == 0
    assert remembered[-1].timestamp == newest.timestamp == 2


def test_one_liar_does_not_stand_for_all(
    boot: Boot, publish: Publish, serve: Serve, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept boots when nobody helps, not when the first to answer does not."""
    repository = publish()
    publish("strange", keys="a stranger's")
    assert boot(serve())[0] == 0
    (tmp_path / "r-kernel").write_bytes(kernel(ARCH))
    artifacts = {name: tmp_path / f"r-{name}" for name in ("kernel", "initramfs", "rootfs")}
    repository.add("stable", ARCH, artifacts, cmdline="quiet", release="1.0.1")
    repository.publish()
    (tmp_path / "etc/allow-offline").touch()
    found = [serve("strange"), serve()]
    searches: list[float] = []

    def discover(channel: str, of: str, *, gather: float, **_: object) -> Iterator[Provider]:
        # The honest one is slower to answer than the first search lasts.
        for url in found[: 1 + (gather > 0.1)]:
            yield Provider(url, channel, of, None, "mdns", "")
        searches.append(gather)

    monkeypatch.setattr(discovery, "discover", discover)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    code, asked = boot(words="phase.timeout=60")
    assert code == 0
    newest = repository.manifest("stable", ARCH).artifacts["kernel"].sha256
    assert sha256(asked.loaded[0][1]).hexdigest() == newest
    # With no honest one at all, the kept release boots once every search has failed.
    del found[1], searches[:]
    code, asked = boot(words="phase.timeout=60")
    assert (code, searches) == (0, list(main._GATHER))
    assert sha256(asked.loaded[0][1]).hexdigest() == newest


def test_nobody_at_all_is_enough_to_boot_what_is_kept(
    boot: Boot, publish: Publish, serve: Serve, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish()
    assert boot(serve())[0] == 0
    (tmp_path / "etc/allow-offline").touch()
    searches: list[float] = []

    def discover(*_: object, gather: float, **__: object) -> Iterator[Provider]:
        searches.append(gather)
        return iter(())

    monkeypatch.setattr(discovery, "discover", discover)
    assert boot(words="phase.timeout=60")[0] == 0
    assert len(searches) == 1


def test_a_liar_is_not_asked_again_in_a_later_attempt(
    boot: Boot, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish()
    asked: list[str] = []

    def answer(request: Request, connection: socket.socket, stop: threading.Event) -> bool:
        path = tmp_path / "r" / request.path.lstrip("/")
        body = path.read_bytes() if path.is_file() else None
        if body is not None and "/blobs/" in request.path:
            asked.append(request.path)
            body = bytes(len(body))
        return send(body, request, connection)

    monkeypatch.setattr(time, "sleep", lambda _: None)
    with Server(answer) as liar:
        assert boot(liar.url, words="phase.timeout=20") == (1, Asked([], []))
    assert len(asked) == 1


def test_what_arrived_counts_in_the_next_attempt_and_a_new_provider_goes_on(
    boot: Boot,
    publish: Publish,
    serve: Serve,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """On a machine without a disk: a provider dies in the middle, and the next search finds another."""
    manifest = publish().manifest("stable", ARCH)
    sizes = {artifact.sha256: artifact.length for artifact in manifest.artifacts.values()}
    kernels = manifest.artifacts["kernel"].sha256

    def answer(request: Request, connection: socket.socket, stop: threading.Event) -> bool:
        path = tmp_path / "r" / request.path.lstrip("/")
        if path.name != kernels:
            return send(path.read_bytes() if path.is_file() else None, request, connection)
        # Two of its three megabytes, once, and never anything again.
        if request.span is None:
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {sizes[kernels]}\r\n\r\n"
            connection.sendall(head.encode() + path.read_bytes()[: 2 << 20])
        return False

    found: list[str] = []

    def discover(channel: str, of: str, **_: object) -> Iterator[Provider]:
        yield Provider(found.pop(0), channel, of, None, "mdns", "")

    monkeypatch.setattr(discovery, "discover", discover)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with Server(answer) as dying:
        found += [dying.url, serve()]
        code, asked = boot(words="phase.timeout=60")
    assert code == 0
    assert sha256(asked.loaded[0][1]).hexdigest() == kernels
    lines = capfd.readouterr().err.splitlines()
    marks = [
        json.loads(line.removeprefix("phase-mark ")) for line in lines if line.startswith("phase-mark ")
    ]
    (fetched,) = [mark for mark in marks if (mark["step"], mark["outcome"]) == ("fetch", "ok")]
    # All that came before the kernel, and the two megabytes of it.
    assert fetched["kept"] == manifest.artifacts["initramfs"].length + (2 << 20)
    assert fetched["bytes"] == sum(sizes.values())


def test_the_image_remembers_for_a_machine_that_cannot(
    boot: Boot, publish: Publish, serve: Serve, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    repository = publish()
    shutil.copytree(tmp_path / "r", tmp_path / "old", symlinks=True)
    artifacts = {name: tmp_path / f"r-{name}" for name in ("kernel", "initramfs", "rootfs")}
    repository.add("stable", ARCH, artifacts, cmdline="quiet", release="1.0.1")
    repository.publish()
    assert boot(serve("old"))[0] == 0
    root = (tmp_path / "r/metadata/1.root.json").read_bytes()
    floor.save(tmp_path / "etc/floor.json", check.newest(tmp_path / "r", root, now=datetime.now(UTC)))
    assert boot(serve("old")) == (1, Asked([], []))
    assert "version 2 was trusted before" in capfd.readouterr().err
    assert boot(serve())[0] == 0
    (tmp_path / "etc/floor.json").write_text("{")
    assert boot(serve()) == (1, Asked([], []))


def test_what_is_kept_is_no_older_than_the_image(
    boot: Boot, publish: Publish, serve: Serve, kept: Path, tmp_path: Path
) -> None:
    repository = publish()
    assert boot(serve())[0] == 0
    artifacts = {name: tmp_path / f"r-{name}" for name in ("kernel", "initramfs", "rootfs")}
    repository.add("stable", ARCH, artifacts, cmdline="quiet", release="1.0.1")
    repository.publish()
    (tmp_path / "etc/allow-offline").touch()
    nobody = "http://127.0.0.1:9"
    assert boot(nobody)[0] == 0
    root = (tmp_path / "r/metadata/1.root.json").read_bytes()
    floor.save(tmp_path / "etc/floor.json", check.newest(tmp_path / "r", root, now=datetime.now(UTC)))
    assert boot(nobody) == (1, Asked([], []))
