"""The seed's stages against a real provider."""

import json
import socket
import threading
from bisect import bisect_right
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from fixtures.hostile.provider import send
from fixtures.hostile.server import Asked as Request
from fixtures.hostile.server import Server
from phase.boot.machine import Search
from phase.boot.policy import GATHER
from phase.discovery import Provider
from tests.phase.boot.conftest import ARCH, OTHER, Asked, Boot, Publish, Serve, kernel


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


def test_each_step_is_marked_with_what_it_found(
    boot: Boot, publish: Publish, serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    manifest = publish().manifest("stable", ARCH)
    publish("strange", keys="a stranger's")
    url, dead = serve(), "http://127.0.0.1:9"
    code, asked = boot(dead, url)
    assert code == 0
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("phase-mark ")]
    marks = {mark["step"]: mark for mark in map(json.loads, (line.partition(" ")[2] for line in said))}
    assert list(marks) == ["init", "network", "discover", "trust", "fetch", "verify", "load", "handoff"]
    assert {mark["outcome"] for mark in marks.values()} == {"ok"}
    found = marks["trust"]
    assert (found["version"], found["release"], found["provider"]) == (1, "1.0.0", url)
    size = sum(artifact.length for artifact in manifest.artifacts.values())
    fetched = marks["fetch"]
    assert (fetched["bytes"], fetched["kept"], fetched["sources"]) == (size, 0, f"{url}={size}")
    assert marks["verify"]["rootfs"] == manifest.artifacts["rootfs"].sha256
    assert marks["verify"]["kernel"] == manifest.artifacts["kernel"].sha256
    assert marks["handoff"]["cmdline"] == asked.loaded[0][0]


@pytest.mark.parametrize(("mode", "asked"), [("internet", 1), ("local", 0), ("private", 0)])
def test_only_in_internet_mode_is_the_dht_asked(boot: Boot, publish: Publish, mode: str, asked: int) -> None:
    publish()
    boot(words=f"phase.dht=192.0.2.1:8080 phase.mdns=off phase.mode={mode} phase.tor=127.0.0.1:9")
    searches = boot.machine.searches
    assert [len(each.dht) for each in searches] == [asked] * len(searches)
    assert searches
    assert not any(each.mdns for each in searches)


def test_a_flipped_bit_starts_nothing(
    boot: Boot, publish: Publish, serve: Serve, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kernel = publish().manifest("stable", ARCH).artifacts["kernel"]
    blob = tmp_path / "r/blobs/sha256" / kernel.sha256
    content = bytearray(blob.read_bytes())
    content[2 << 20] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(content)
    code, asked = boot(serve())
    assert (code, asked) == (1, Asked([], []))
    said = capfd.readouterr().err
    assert f"chunk {bisect_right(kernel.starts, 2 << 20) - 1} of kernel is not the signed one" in said
    assert "phase: giving up at fetch: " in said


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
    boot.machine.etc["grace-local"] = b"432000\n"
    assert boot(url) == (1, Asked([], [])), "its grace is another mode's"
    assert boot(url, words="phase.mode=local")[0] == 0
    assert '"overdue":"timestamp.json"' in capfd.readouterr().err.replace(": ", ":")
    boot.machine.etc["grace-local"] = b"86400\n"
    assert boot(url, words="phase.mode=local") == (1, Asked([], []))


def test_one_liar_does_not_stand_for_all(
    boot: Boot, publish: Publish, serve: Serve, kept: Path, tmp_path: Path
) -> None:
    """What is kept boots when nobody helps, not when the first to answer does not."""
    repository = publish()
    publish("strange", keys="a stranger's")
    assert boot(serve())[0] == 0
    (tmp_path / "r-kernel").write_bytes(kernel(ARCH))
    artifacts = {name: tmp_path / f"r-{name}" for name in ("kernel", "initramfs", "rootfs")}
    repository.add("stable", ARCH, artifacts, cmdline="quiet", release="1.0.1")
    repository.publish()
    boot.machine.etc["allow-offline"] = b""
    found = [serve("strange"), serve()]

    def nearby(search: Search) -> Iterator[Provider]:
        # The honest one is slower to answer than the first search lasts.
        for url in found[: 1 + (search.gather > 0.1)]:
            yield Provider(url, search.channel, search.arch, None, "mdns", "")

    boot.machine.nearby = nearby
    code, asked = boot(words="phase.timeout=60")
    assert code == 0
    newest = repository.manifest("stable", ARCH).artifacts["kernel"].sha256
    assert sha256(asked.loaded[0][1]).hexdigest() == newest
    # With no honest one at all, the kept release boots once every search has failed.
    del found[1]
    code, asked = boot(words="phase.timeout=60")
    assert (code, [each.gather for each in boot.machine.searches]) == (0, list(GATHER))
    assert sha256(asked.loaded[0][1]).hexdigest() == newest


def test_a_liar_is_not_asked_again_in_a_later_attempt(boot: Boot, publish: Publish, tmp_path: Path) -> None:
    publish()
    asked: list[str] = []

    def answer(request: Request, connection: socket.socket, stop: threading.Event) -> bool:
        path = tmp_path / "r" / request.path.lstrip("/")
        body = path.read_bytes() if path.is_file() else None
        if body is not None and "/blobs/" in request.path:
            asked.append(request.path)
            body = bytes(len(body))
        return send(body, request, connection)

    with Server(answer) as liar:
        assert boot(liar.url, words="phase.timeout=20") == (1, Asked([], []))
    assert len(asked) == 1


def test_what_arrived_counts_in_the_next_attempt_and_a_new_provider_goes_on(
    boot: Boot,
    publish: Publish,
    serve: Serve,
    tmp_path: Path,
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

    def nearby(search: Search) -> Iterator[Provider]:
        yield Provider(found.pop(0), search.channel, search.arch, None, "mdns", "")

    boot.machine.nearby = nearby
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
    # All that came before the kernel, and the whole chunks in two megabytes of it.
    starts = manifest.artifacts["kernel"].starts
    whole = starts[bisect_right(starts, 2 << 20) - 1]
    assert whole > 1 << 20
    assert fetched["kept"] == manifest.artifacts["initramfs"].length + whole
    assert fetched["bytes"] == sum(sizes.values())
