"""A machine that is nothing but network cards, for the scripts of `boot/files`: namespaces, no root needed.

It has a mount namespace of its own, with an empty `/run`, its own `/sys`, and a file in the place of
`/dev/kmsg`.
"""

import array
import contextlib
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import psutil

from lab.net.segment import Segment

FILES = Path(__file__).parents[2] / "boot" / "files"
BUSYBOX = "/bin/busybox"
#: Makes the cards, each with a peer whose frames a packet socket reads, and hands those sockets over.
_KEEPER = """
import array, ctypes, os, socket, subprocess, sys
control, log, *names = sys.argv[1:]
control = socket.socket(fileno=int(control))
run = lambda *words: subprocess.run(words, check=True)
for kind, place in (("tmpfs", "/run"), ("sysfs", "/sys"), ("proc", "/proc")):
    run("mount", "-t", kind, kind, place)
run("mount", "--bind", log, "/dev/kmsg")
os.mkdir("/run/phase")
open("/run/phase/mode", "w").write("internet")
run("ip", "link", "set", "lo", "up")
# The other ends are a switch's: they are in a namespace of their own, and are no cards of the machine.
run("ip", "netns", "add", "switch")
switch, here = (os.open(path, os.O_RDONLY) for path in ("/run/netns/switch", "/proc/self/ns/net"))
setns = ctypes.CDLL(None, use_errno=True).setns
peers = []
for number, name in enumerate(names):
    peer = f"peer{number}"
    run("ip", "link", "add", "name", name, "type", "veth", "peer", "name", peer, "netns", "switch")
    for words in (["up"], ["addrgenmode", "none"]):
        run("ip", "-n", "switch", "link", "set", "dev", peer, *words)
    assert setns(switch, 0) == 0
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    made.bind((peer, 0))
    assert setns(here, 0) == 0
    peers.append(made.detach())
control.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", peers))])
control.recv(1)
"""


class Cards:
    """A machine with network cards, each plugged into a segment.

    Args:
        directory: where its files go.
        segments: card to what it is plugged into.
    """

    def __init__(self, directory: Path, segments: dict[str, Segment]) -> None:
        self.log = directory / "kmsg"
        self.log.write_text("")
        here, there = socket.socketpair()
        words = [
            "unshare",
            "--user",
            "--map-root-user",
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
        ]
        argv = [*words, sys.executable, "-I", "-c", _KEEPER, str(there.fileno()), str(self.log), *segments]
        self._running: list[subprocess.Popen[bytes]] = []
        with there:
            self._keeper = subprocess.Popen(argv, pass_fds=[there.fileno()], stdin=subprocess.DEVNULL)
        self._control = here
        self._segments = segments
        here.settimeout(20)
        _, ancillary, _, _ = here.recvmsg(1, socket.CMSG_SPACE(4 * len(segments)))
        (child,) = psutil.Process(self._keeper.pid).children()
        names = "--user --preserve-credentials --net --mount --pid"
        self._enter = ["nsenter", f"--target={child.pid}", *names.split(), "--"]
        self._stopped, self._stop = os.pipe()
        self._threads = []
        for peer, segment in zip(array.array("i", ancillary[0][2]), segments.values(), strict=True):
            card = socket.socket(fileno=peer)
            send = segment.switch.add_service(_receiver(card), f"card{peer}").send
            self._threads.append(threading.Thread(target=self._read, args=(card, send), daemon=True))
        for thread in self._threads:
            thread.start()

    def _read(self, card: socket.socket, send: Callable[[bytes], None]) -> None:
        with card:
            while True:
                ready, _, _ = select.select([card.fileno(), self._stopped], [], [])
                if self._stopped in ready:
                    return
                with contextlib.suppress(OSError):
                    frame, where = card.recvfrom(65_536)
                    if where[2] != socket.PACKET_OUTGOING:
                        send(frame)

    def run(self, script: str, **environment: str) -> str:
        """What a line of shell prints; it has to succeed."""
        done = subprocess.run(
            [*self._enter, "sh", "-c", script], capture_output=True, text=True, timeout=30,
            env=os.environ | environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, *argv: str | Path) -> subprocess.Popen[bytes]:
        """Start a program that ends with the machine."""
        process = subprocess.Popen([*self._enter, *map(str, argv)], stdin=subprocess.DEVNULL)
        self._running.append(process)
        return process

    def python(self, program: str, *words: str | Path) -> str:
        """What a Python program prints; it may import what this repository has."""
        path = f"import sys; sys.path.insert(0, {str(FILES.parents[1])!r})\n"
        argv = [*self._enter, sys.executable, "-c", path + program, *map(str, words)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def lease(self, what: str, interface: str = "eth0", **told: str) -> None:
        """Call the script as udhcpc would."""
        script = shlex.quote(str(FILES / "udhcpc"))
        self.run(f"{script} {what}", interface=interface, **told)

    def addresses(self, interface: str = "eth0", family: str = "-4") -> list[str]:
        """The addresses of a card, with their lengths."""
        lines = self.run(f"ip -o {family} address show dev {shlex.quote(interface)}").splitlines()
        return [line.split()[3] for line in lines]

    def routes(self) -> list[str]:
        """The IPv4 routes, as the host's `ip` prints them, but for those that the kernel made."""
        lines = self.run("ip -4 route").splitlines()
        return [line.strip() for line in lines if "proto kernel" not in line]

    def cable(self, interface: str, *, plugged: bool) -> None:
        """Pull a card's cable, or plug it in."""
        number = list(self._segments).index(interface)
        self.run(f"ip -n switch link set dev peer{number} {'up' if plugged else 'down'}")

    def read(self, path: str) -> str:
        """A file of this machine; nothing where there is none."""
        return self.run(f"cat {path} 2>/dev/null || true")

    def wait(self, seen: Callable[[], bool], what: str, seconds: float = 20) -> None:
        """Wait until something is so."""
        end = time.monotonic() + seconds
        while not seen():
            assert time.monotonic() < end, f"{what}: not within {seconds} s; {self.log.read_text()}"
            time.sleep(0.05)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.write(self._stop, b"x")
        for thread in self._threads:
            thread.join(5)
        os.close(self._stop)
        os.close(self._stopped)
        self._control.close()
        # With its first process all others of the machine end.
        self._keeper.send_signal(signal.SIGTERM)
        for process in (self._keeper, *self._running):
            process.wait(10)


def _receiver(card: socket.socket) -> Callable[[bytes], list[bytes]]:
    def take(frame: bytes) -> list[bytes]:
        # A cable without carrier loses what is sent.
        with contextlib.suppress(OSError):
            card.send(frame)
        return []

    return take
