"""A card on a segment for ordinary programs of the host, in a network namespace of their own.

The namespace has that card (a tap) and `lo`, and no way to the host's network. It needs Linux, iproute2
and util-linux, and root or user namespaces with a /dev/net/tun for everybody. A process of its own keeps
it; when this process ends, however, that one does too, and the kernel takes namespace and card away.
"""

import array
import contextlib
import os
import select
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

from lab.children import dies_with_us
from lab.errors import InfrastructureError, ProductError

_KEEPER = Path(__file__).with_name("keeper.py")
_START, _END = 20.0, 10.0
_LONGEST = 65_536


class HostPort:
    """A namespace whose card is on a segment.

    Args:
        name: of the port.
        address: of its card.
        mac: hardware address.
        gateway: the way out of the segment, if there is one.
        factor: what its programs may take is multiplied by this.

    Attributes:
        name: of the port.
        address: of its card, with the network.
        send: puts a frame on the segment.

    Raises:
        InfrastructureError: this host allows no such thing; says why.
    """

    def __init__(
        self,
        name: str,
        address: IPv4Interface,
        mac: bytes,
        gateway: IPv4Address | None,
        *,
        factor: float = 1.0,
    ) -> None:
        self.name = name
        self._factor = factor
        self.address = address
        self.send: Callable[[bytes], None] = lambda frame: None
        here, there = socket.socketpair()
        self._control = here
        rootless = os.geteuid() != 0
        unshare = ["unshare", "--net", *(["--user", "--map-root-user"] if rootless else [])]
        words = [str(there.fileno()), mac.hex(":"), str(address), str(gateway or "")]
        try:
            with there:
                self._keeper = subprocess.Popen(
                    [*unshare, sys.executable, "-I", str(_KEEPER), *words],
                    pass_fds=[there.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
        except OSError as error:
            here.close()
            raise InfrastructureError(f"{name}: no network namespace on this host: {error}") from error
        try:
            self._tap = self._receive_tap()
        except BaseException:
            self._end()
            raise
        self._card = threading.Lock()
        self._enter = ["nsenter", f"--target={self._keeper.pid}", "--net"]
        if rootless:
            self._enter += ["--user", "--preserve-credentials"]
        self._stopped, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._read, name=f"port-{name}", daemon=True)

    def start(self) -> None:
        """Let frames through, once `send` is set."""
        self._thread.start()

    def __call__(self, frame: bytes) -> list[bytes]:
        """Take a frame of the segment."""
        # Too long for a card, or one that was switched off: lost, as on any cable.
        with self._card, contextlib.suppress(OSError):
            os.write(self._tap, frame)
        return []

    def command(self, *argv: str | Path) -> list[str]:
        """The words that run a program there, for `subprocess` or a person at the shell."""
        return [*self._enter, "--", *(str(word) for word in argv)]

    def run(self, *argv: str | Path, timeout: float = 60) -> str:
        """Run a program there; what it printed.

        Args:
            argv: the program and its arguments.
            timeout: seconds on a host of ordinary speed.

        Raises:
            ProductError: it failed, or took too long.
        """
        timeout *= self._factor
        told = shlex.join(str(word) for word in argv)
        try:
            done = subprocess.run(
                self.command(*argv),
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                preexec_fn=dies_with_us(),
            )
        except subprocess.TimeoutExpired as error:
            raise ProductError(f"{self.name}: {told}: still running after {timeout:g} s") from error
        if done.returncode:
            said = done.stdout + done.stderr
            raise ProductError(f"{self.name}: {told}: exit status {done.returncode}", evidence=said)
        return done.stdout

    @contextlib.contextmanager
    def running(self, *argv: str | Path) -> Iterator["subprocess.Popen[str]"]:
        """A program there for as long as this lasts; its output is a pipe, both streams in one."""
        process = subprocess.Popen(
            self.command(*argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=dies_with_us(),
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.communicate(timeout=_END)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()

    def close(self) -> None:
        """End it. Programs that still run there keep the namespace, and lose the card."""
        if self._thread.is_alive():
            os.write(self._stop, b"x")
            self._thread.join(timeout=5)
        with self._card:
            # The switch may still have a frame for it, and the number may be another file's soon.
            tap, self._tap = self._tap, -1
        for end in (self._stop, self._stopped, tap):
            os.close(end)
        self._end()

    def _end(self) -> str:
        self._control.close()
        try:
            _, said = self._keeper.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            _, said = self._keeper.communicate()
        return said.decode(errors="replace").strip()

    def _receive_tap(self) -> int:
        self._control.settimeout(_START)
        try:
            said, ancillary, _, _ = self._control.recvmsg(1, socket.CMSG_SPACE(4))
        except TimeoutError:
            said, ancillary = b"", []
        if not said or not ancillary:
            why = self._end() or "no answer"
            raise InfrastructureError(
                f"{self.name}: no card for the host's programs here: {why.splitlines()[-1]}", evidence=why
            )
        return array.array("i", ancillary[0][2])[0]

    def _read(self) -> None:
        while True:
            ready, _, _ = select.select([self._tap, self._stopped], [], [])
            if self._stopped in ready:
                return
            try:
                self.send(os.read(self._tap, _LONGEST))
            except OSError:
                # The card is gone: its keeper was killed.
                return


def refusal() -> str:
    """Why this host cannot have such a port; empty when it can."""
    try:
        port = HostPort("trial", IPv4Interface("192.0.2.1/24"), b"\x52\x54\0\0\0\1", None)
    except InfrastructureError as error:
        return error.what
    port.close()
    return ""
