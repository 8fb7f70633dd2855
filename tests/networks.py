"""Hosts with cards and cables for tests: network namespaces in a user namespace, so no root is needed.

Linux with user namespaces, `iproute2` and `util-linux`; the doctor installs both. Nothing of it reaches the
network of the host, and nothing is left when the block ends.
"""

import contextlib
import ctypes
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).parent.parent
_CLONE_NEWNET = 0x40000000


def alone(work: Callable[[], Any]) -> Any:
    """Do something in this process where there is no card but `lo`; needs root, and skips the test without.

    Args:
        work: runs in a thread that has left the network of the host; so do the programs that it starts.

    Returns:
        What it returned.
    """

    def left() -> Any:
        if ctypes.CDLL(None).unshare(_CLONE_NEWNET) != 0:
            pytest.skip("only root leaves the network in a thread")
        return work()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(left).result()


class Host:
    """A machine with a network of its own: `lo`, and the cards it is given."""

    def __init__(self, keeper: "subprocess.Popen[bytes]") -> None:
        self.pid = keeper.pid
        self._enter = ["nsenter", f"--target={keeper.pid}", "--user", "--net", "--preserve-credentials"]

    def command(self, *words: str) -> list[str]:
        """The words that run a program there."""
        return [*self._enter, "--", *words]

    def ip(self, *lines: str) -> None:
        """Commands of `ip`, in one go."""
        text = "\n".join(lines)
        subprocess.run(self.command("ip", "-batch", "-"), input=text, text=True, check=True)

    def python(self, *words: str, **options: Any) -> "subprocess.Popen[str]":
        """Start a program of Python there, its output in a pipe."""
        return subprocess.Popen(
            self.command(sys.executable, *words), stdout=subprocess.PIPE, text=True, cwd=_ROOT, **options
        )

    def phase(self, *words: str) -> str:
        """Run a command of Phase there; what it printed on both streams."""
        done = subprocess.run(
            self.command(sys.executable, "-m", "phase", *words), capture_output=True, text=True, cwd=_ROOT
        )
        return done.stdout + done.stderr

    def discover(self, channel: str, *words: str) -> list[dict[str, Any]]:
        """What `phase discover` finds there."""
        said = self.phase("discover", "--channel", channel, "--arch", "x86_64", "--json", *words)
        return [json.loads(line) for line in said.splitlines() if line.startswith("{")]

    @contextlib.contextmanager
    def advertising(
        self, repository: Path, bind: str = "0.0.0.0,::", *, port: int = 8099
    ) -> Iterator["Advertiser"]:
        """A provider's mDNS there; what it says of itself can be asked."""
        words = ("-m", "tests.advertiser", str(repository), bind, str(port))
        process = self.python(*words, stdin=subprocess.PIPE)
        try:
            yield Advertiser(process)
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.communicate(timeout=20)


class Advertiser:
    """What runs `tests.advertiser`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def status(self) -> dict[str, Any]:
        """What it says of itself."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("status\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def until(self, done: Any, seconds: float = 20) -> dict[str, Any]:
        """Wait until `done(status)`; that status."""
        import time

        end = time.monotonic() + seconds
        while not done(found := self.status()):
            assert time.monotonic() < end, found
            time.sleep(0.05)
        return found

    def answering(self, *interfaces: str) -> dict[str, Any]:
        """Wait until it answers on exactly these."""
        return self.until(
            lambda found: (
                {each["name"] for each in found["interfaces"] if each["state"] == "answering"}
                == set(interfaces)
            )
        )


@contextlib.contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """So many hosts, each with `lo` up and no card."""
    with contextlib.ExitStack() as stack:
        keepers: list[subprocess.Popen[bytes]] = []
        found: list[Host] = []
        for number in range(count):
            command = ["unshare", "--user", "--map-root-user", "--net"]
            if number:
                # All in the first one's user namespace, so that cables can lead from one to another.
                command = ["nsenter", f"--target={keepers[0].pid}", "--user", "--preserve-credentials"]
                command += ["--", "unshare", "--net"]
            command += ["sh", "-c", "echo; exec cat"]
            keeper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            keepers.append(keeper)
            stack.callback(keeper.communicate)
            assert keeper.stdout is not None
            assert keeper.stdout.readline() == b"\n", "no user or network namespaces on this host"
            found.append(Host(keeper))
            found[-1].ip("link set lo up")
        yield found


def cable(one: Host, card: str, other: Host, other_card: str) -> None:
    """Connect two hosts by new cards, both down."""
    one.ip(f"link add {card} type veth peer name {other_card} netns {other.pid}")
