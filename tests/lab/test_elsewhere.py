"""What happens to one machine of a lab while somebody waits for another."""

import errno
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.console import Console
from lab.errors import InfrastructureError, MachineDied, WaitTimeout
from lab.qemu.vm import VM
from lab.topology import Lab

PANIC = b"before\n[    2.0] Kernel panic - not syncing: why\n"


class Pair:
    """Two machines that are on, as far as anybody can tell from their consoles."""

    def __init__(self, directory: Path) -> None:
        self.lab = Lab(factor=1)
        kernel = directory / "kernel"
        kernel.touch()
        self.ends: dict[str, socket.socket] = {}
        self.client, self.server = (self.made(name, kernel, directory) for name in ("client", "server"))

    def made(self, name: str, kernel: Path, directory: Path) -> VM:
        vm = self.lab.vm(name, arch="x86_64", kernel=kernel)
        self.ends[name], ours = socket.socketpair()
        vm._console, vm.power_on = Console(name, ours, directory / name, elsewhere=self.lab.check), 1.0
        return vm


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    yield made
    for end in made.ends.values():
        end.close()
    made.lab.close()


@pytest.mark.parametrize("by", ["line", "dialogue", "event"])
def test_the_death_of_another_ends_the_wait(pair: Pair, by: str) -> None:
    pair.ends["server"].sendall(PANIC)
    waits: dict[str, Callable[[], object]] = {
        "line": lambda: pair.client.console.wait_line("never", timeout=60),
        "dialogue": lambda: pair.client.console.spawn(timeout=60).expect("never"),
        "event": lambda: pair.client.wait_event("NEVER"),
    }
    begun = time.monotonic()
    with pytest.raises(MachineDied, match=r"server: kernel panic: .*why") as died:
        waits[by]()
    assert time.monotonic() - begun < 2
    assert "before" in died.value.evidence
    # Told once: whoever looks at the client now is not told of the server again.
    with pytest.raises(WaitTimeout, match="client"):
        pair.client.console.wait_line("never", timeout=1)


def test_what_comes_is_taken_though_another_dies(pair: Pair) -> None:
    pair.ends["server"].sendall(PANIC)
    pair.ends["client"].sendall(b"here\n")
    pair.client.console.wait_line("here", timeout=5)

    def checks() -> None:
        end = time.monotonic() + 5  # its line may come later
        while time.monotonic() < end:
            pair.lab.check()
            time.sleep(0.01)

    with pytest.raises(MachineDied, match="server"):
        checks()


def test_two_wanted_deaths_are_taken_one_after_the_other(pair: Pair) -> None:
    pair.ends["server"].sendall(PANIC)
    time.sleep(1)
    pair.ends["client"].sendall(PANIC)
    assert "why" in pair.client.console.wait_death(timeout=5)
    assert "why" in pair.server.console.wait_death(timeout=5)
    pair.lab.check()


def test_a_death_that_does_not_come_is_not_why_when_another_did(pair: Pair) -> None:
    pair.ends["server"].sendall(PANIC)
    with pytest.raises(MachineDied, match="server: "):
        pair.client.console.wait_death(timeout=1)


def test_one_that_is_switched_off_is_no_death(pair: Pair) -> None:
    pair.ends["server"].close()
    with pytest.raises(WaitTimeout, match="client"):
        pair.client.console.wait_line("never", timeout=1.5)


def test_one_that_the_host_took_away_is_the_hosts_failure(pair: Pair) -> None:
    pair.server.console._lost = lambda: "QEMU was killed by SIGKILL"
    pair.ends["server"].close()
    with pytest.raises(InfrastructureError, match="server: QEMU was killed"):
        pair.client.console.wait_line("never", timeout=60)
    pair.lab.check()


@pytest.mark.parametrize("deadly", [True, False])
def test_the_end_of_a_segment_ends_the_wait(pair: Pair, deadly: bool) -> None:
    """A loss function that raises, or a full disk: the machines cannot help it."""
    lan = pair.lab.segment("lan")

    def full(frame: bytes) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    node = lan.switch.add_service(lambda frame: [], "node")
    lan.link("node").drop = full
    node.send(b"\xff" * 60)
    begun = time.monotonic()
    with pytest.raises(InfrastructureError, match=r"segment lan has ended.*No space left"):
        pair.client.console.wait_line("never", timeout=60 if deadly else 1, deadly=deadly)
    assert time.monotonic() - begun < 2
    with pytest.raises(InfrastructureError, match="segment lan"):
        pair.lab.close()
