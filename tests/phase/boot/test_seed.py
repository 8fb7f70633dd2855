"""Whom the seed asks, in which order, and what a person at its console reads meanwhile."""

import errno
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.hostile.provider import send
from fixtures.hostile.server import Asked as Request
from fixtures.hostile.server import Server
from phase import trust
from phase.boot import initrd, main
from phase.boot.errors import HandoffError, LockedDownError
from phase.boot.fake import StartedError
from phase.boot.machine import Search
from phase.boot.seed import Seed
from phase.discovery import Provider
from phase.trust import floor
from tests.phase.boot.conftest import ARCH, Asked, Boot, Publish, Serve, nearby

#: Nobody listens there.
DEAD = "http://127.0.0.1:9"


def lines(capfd: pytest.CaptureFixture[str]) -> list[str]:
    """What people read."""
    return [line for line in capfd.readouterr().err.splitlines() if line.startswith("phase: ")]


def test_a_named_provider_is_dead_and_a_good_one_answers_mdns(
    boot: Boot, publish: Publish, serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    publish()
    boot.machine.nearby = nearby(serve())
    code, asked = boot(DEAD)
    assert (code, asked.started) == (0, [True])
    # In the same attempt, and the search asks for others than the one that is named.
    assert len(boot.machine.searches) == 1
    assert boot.machine.slept == []
    said = lines(capfd)
    assert [line for line in said if "no connection" in line] == [
        f"phase: trust: not from {DEAD}: no connection: Connection refused. Is `phase serve` running there?"
    ]
    assert "phase: no provider that was named helps; looking for others" in said


def test_a_named_provider_that_is_good_is_the_only_one_asked(
    boot: Boot, publish: Publish, serve: Serve
) -> None:
    publish()
    boot.machine.nearby = nearby(DEAD)
    assert boot(serve())[0] == 0
    assert boot.machine.searches == []


def test_a_named_provider_of_another_publisher_does_not_stop_the_boot(
    boot: Boot, publish: Publish, serve: Serve
) -> None:
    publish()
    publish("strange", keys="a stranger's")
    boot.machine.nearby = nearby(serve())
    assert boot(serve("strange"))[0] == 0


def test_a_named_provider_that_dies_while_it_sends_is_replaced(
    boot: Boot, publish: Publish, serve: Serve, tmp_path: Path
) -> None:
    publish()

    def answer(request: Request, connection: socket.socket, stop: threading.Event) -> bool:
        path = tmp_path / "r" / request.path.lstrip("/")
        if "/blobs/" in request.path:
            return False
        return send(path.read_bytes() if path.is_file() else None, request, connection)

    boot.machine.nearby = nearby(serve())
    with Server(answer) as dying:
        assert boot(dying.url)[0] == 0


def test_a_named_provider_that_is_too_slow_leaves_time_for_others(
    boot: Boot, publish: Publish, serve: Serve, tmp_path: Path
) -> None:
    manifest = publish().manifest("stable", ARCH)

    def answer(request: Request, connection: socket.socket, stop: threading.Event) -> bool:
        path = tmp_path / "r" / request.path.lstrip("/")
        if path.name != manifest.artifacts["kernel"].sha256:
            return send(path.read_bytes() if path.is_file() else None, request, connection)
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {path.stat().st_size}\r\n\r\n".encode())
        stop.wait(30)
        return False

    boot.machine.nearby = nearby(serve())
    with Server(answer) as slow:
        assert boot(slow.url, words="phase.timeout=3")[0] == 0
    assert len(boot.machine.searches) == 1


@pytest.mark.parametrize(
    "words", ["phase.mdns=off", "phase.mdns=off phase.dht=off", "phase.mdns=off phase.mode=local"]
)
def test_nobody_else_is_asked_where_nobody_may_be(
    boot: Boot, publish: Publish, serve: Serve, words: str
) -> None:
    publish()
    boot.machine.nearby = nearby(serve())
    assert boot(DEAD, words=f"{words} phase.timeout=30") == (1, Asked([], []))
    assert not any(search.mdns or search.dht for search in boot.machine.searches)


def test_a_failure_is_told_once_and_summed_up_at_the_end(
    boot: Boot, publish: Publish, capfd: pytest.CaptureFixture[str]
) -> None:
    publish()
    assert boot(DEAD, words="phase.timeout=300 phase.mdns=off") == (1, Asked([], []))
    said = lines(capfd)
    end = next(index for index, line in enumerate(said) if line.startswith("phase: giving up at trust: "))
    during = [line for line in said[:end] if "Connection refused" in line]
    assert len(during) == 1
    # Each attempt says when the next one is and how long there will be more, in a short line.
    again = [line for line in said[:end] if line.startswith("phase: trying again in ")]
    assert again[0].startswith("phase: trying again in 2 s, for ")
    assert len(again) > 5
    assert all(len(line) < 80 for line in again)
    assert said[end + 1 :] == [
        f"phase:   {DEAD}: no connection: Connection refused. Is `phase serve` running there?",
        "phase: next: this machine restarts and tries again in 10 s",
    ]
    assert len(said) <= 25, "it fits a screen"


def test_the_same_failure_of_a_search_is_told_once(
    boot: Boot, publish: Publish, capfd: pytest.CaptureFixture[str]
) -> None:
    publish()
    assert boot(words="phase.timeout=300")[0] == 1
    said = lines(capfd)
    assert len([line for line in said if "was found" in line]) == 2, "when it happens, and at the end"


def test_a_mistake_of_ours_is_shown_printable_and_bounded(
    boot: Boot, publish: Publish, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    publish()

    def broken(search: Search) -> Iterator[Provider]:
        raise RuntimeError('x\x1b[2J\n<3>phase-mark {"step":"job","outcome":"ok","t":1}')

    boot.machine.nearby = broken
    assert boot() == (1, Asked([], []))
    said = capfd.readouterr().err
    assert "\x1b" not in said
    assert all(line.startswith(("phase: ", "phase-mark ")) for line in said.splitlines())
    assert '"final":true' in said
    assert '"step":"job"' not in said
    told = [line for line in said.splitlines() if line.startswith("phase: ")]
    assert any("RuntimeError" in line for line in told[-3:])
    assert len(told) < 30


def test_what_watches_the_boot_is_told_what_follows_before_it_begins(boot: Boot, publish: Publish) -> None:
    publish()
    machine = boot.prepared(words="phase.rescue=poweroff")
    seed = Seed(machine)
    assert machine.rescue == seed.rescue
    assert (seed.stage, seed.rescue[0]) == ("init", "poweroff")


def test_without_a_root_nothing_is_tried(
    boot: Boot, publish: Publish, capfd: pytest.CaptureFixture[str]
) -> None:
    publish()
    boot.machine.line = ""
    assert main.main(boot.machine) == 1
    said = lines(capfd)
    assert said[0].startswith("phase: giving up at init: ")
    assert "This seed was built without a trust root." in said[0]
    assert said[-1].startswith("phase: next: what phase.rescue= says")


@pytest.mark.parametrize("root", [b"", b"{}", b"[]", b"\xff"])
def test_a_root_that_is_damaged_is_the_images_fault_and_no_providers(
    boot: Boot, publish: Publish, serve: Serve, root: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    publish()
    machine = boot.prepared(serve())
    machine.etc["root.json"] = root
    assert main.main(machine) == 1
    said = lines(capfd)
    assert said[0].startswith("phase: giving up at init: the root built into this image cannot be used: ")
    assert not [line for line in said if "not from" in line]


def test_words_that_are_ignored_are_said_once(
    boot: Boot, publish: Publish, serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    publish()
    assert boot(serve(), words="phase.timeout=0 phase.colour=\x1b[31mred phase.timeout=0")[0] == 0
    said = [line for line in lines(capfd) if "kernel command line" in line]
    assert said == [
        "phase: ignored on the kernel command line: phase.timeout=0 (write whole seconds, 1 to 86400)",
        "phase: ignored on the kernel command line: phase.colour= [31mred (there is no such parameter)",
    ]


def test_the_cache_is_unmounted_before_the_handoff(
    boot: Boot, publish: Publish, serve: Serve, kept: Path
) -> None:
    publish()
    assert boot(serve())[0] == 0
    assert boot.machine.did == ["load", "unmount", "measure", "start"]


def test_the_time_of_the_build_is_believed_when_the_clock_says_1970(
    boot: Boot, publish: Publish, serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    """By that clock nothing ever expires."""
    publish(days_ago=10)  # its timestamp held for seven
    url = serve()
    boot.machine.wall = 0.0
    boot.machine.etc["build-time"] = b"%d\n" % time.time()
    assert boot(url) == (1, Asked([], []))
    assert "timestamp.json expired at" in capfd.readouterr().err
    # Nor is a clock believed that stands before what this machine, or its image, has seen.
    boot.machine.etc["build-time"] = b"0\n"
    boot.machine.etc["floor.json"] = floor.encode(trust.Floor(time=int(time.time())))
    assert boot(url) == (1, Asked([], []))
    del boot.machine.etc["floor.json"]
    assert boot(url)[0] == 0


def test_who_lied_or_proved_nothing_comes_last_in_the_next_search(
    boot: Boot, publish: Publish, serve: Serve, tmp_path: Path
) -> None:
    publish()
    publish("strange", keys="a stranger's")

    def answer(request: Request, connection: socket.socket, stop: threading.Event) -> bool:
        path = tmp_path / "r" / request.path.lstrip("/")
        body = path.read_bytes() if path.is_file() else None
        return send(bytes(len(body or b"")) if "/blobs/" in request.path else body, request, connection)

    stranger = serve("strange")
    with Server(answer) as liar:
        boot.machine.nearby = nearby(stranger, liar.url)
        assert boot(words="phase.timeout=20") == (1, Asked([], []))
        assert set(boot.machine.searches[0].last) == set()
        assert {stranger, liar.url} <= set(boot.machine.searches[1].last)


def test_a_kernel_that_cannot_be_loaded_ends_the_boot(
    boot: Boot,
    publish: Publish,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    publish()

    def refuse(kernel: object) -> None:
        raise HandoffError("the kernel refuses to load another")

    monkeypatch.setattr(boot.machine, "load", refuse)
    assert boot(serve()) == (1, Asked([], []))
    assert lines(capfd)[-2:] == [
        "phase: giving up at load: the kernel refuses to load another",
        "phase: next: this machine restarts and tries again in 10 s",
    ]
    assert boot.machine.slept == []


def test_a_release_that_a_locked_down_kernel_refuses_is_not_asked_for_every_ten_seconds(
    boot: Boot, publish: Publish, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish()

    def refuse(kernel: object) -> None:
        raise LockedDownError("the release's kernel is not signed")

    monkeypatch.setattr(boot.machine, "load", refuse)
    assert boot(serve()) == (1, Asked([], []))
    assert boot.machine.slept == []
    assert boot.machine.rescue == ("reboot", 600)


def test_every_byte_of_the_initrd_is_verified_in_this_boot_or_ours(
    boot: Boot, publish: Publish, serve: Serve
) -> None:
    """Up to 508 bytes in front of the initramfs belonged to no piece, and the file was used again."""
    manifest = publish().manifest("stable", ARCH)
    seed = Seed(boot.prepared(serve()))
    os.pwrite(boot.machine.initrd, b"\xa5" * (8 << 20), 0)
    with pytest.raises(StartedError):
        seed.run()
    size = os.fstat(boot.machine.initrd).st_size
    whole = os.pread(boot.machine.initrd, size, 0)
    assert b"\xa5" * 8 not in whole
    end = whole.index(b"TRAILER!!!\0") + 11
    assert not any(whole[end : size - manifest.artifacts["initramfs"].length])


def test_a_plan_leaves_no_byte_to_what_was_there(publish: Publish) -> None:
    repository = publish()
    manifest = repository.manifest("stable", ARCH)
    for length in range(1, 520, 37):
        plan = initrd.plan(manifest, {"timestamp.json": b" " * length})
        parts = [(offset, len(data)) for offset, data in plan.pieces]
        parts += [(slot.offset, slot.length) for slot in plan.slots]
        parts.append((plan.tail, manifest.artifacts["initramfs"].length))
        end = 0
        for offset, size in sorted(parts):
            assert offset == end
            end = offset + size
        assert end == plan.size


def test_a_machine_that_fails_for_a_moment_is_tried_again(
    boot: Boot,
    publish: Publish,
    serve: Serve,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish()
    left = [OSError(errno.ENOSPC, "No space left on device", "/run/phase/initrd")]
    truncate = os.truncate

    def full(file: int, size: int) -> None:
        if size and left:
            raise left.pop()
        truncate(file, size)

    monkeypatch.setattr(os, "truncate", full)
    assert boot(serve())[0] == 0
    assert any("this machine failed: " in line and "No space left" in line for line in lines(capfd))
    assert not left
