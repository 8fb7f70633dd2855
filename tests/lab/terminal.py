"""A real terminal with a real `sh`, over wires of every quality."""

import os
import pty
import random
import select
import socket
import subprocess
import threading
from pathlib import Path

from lab.console import Console

NOBODY = 65534


class Terminal:
    """An interactive `sh` on a terminal, and a wire to it that drops and garbles one byte in `noise`."""

    COMMAND: tuple[str, ...] = ("sh", "-i")

    def __init__(self, log: Path, *, noise: float = 0.0, seed: int = 1, factor: float = 1.0) -> None:
        self._master, slave = pty.openpty()
        # Not as root: root may write the host's kernel log, where a guest's answers go.
        user = NOBODY if os.geteuid() == 0 else os.geteuid()
        os.fchown(slave, user, -1)
        # A shell that starts with ^C ignored, as whatever a script runs in its background does, keeps that.
        command = ["env", "--default-signal=INT", "setsid", "--ctty", *self.COMMAND]
        self._child = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, cwd="/", user=user)
        os.close(slave)
        self._far, near = socket.socketpair()
        self._stop = threading.Event()
        self.noise = noise
        self.spoilt = 0
        self._random = random.Random(seed)  # noqa: S311 - a test that can be run again
        self._carrier = threading.Thread(target=self._carry)
        self._carrier.start()
        self.console = Console("one", near, log, factor=factor)

    def _carry(self) -> None:
        while not self._stop.is_set():
            ready, _, _ = select.select([self._master, self._far.fileno()], [], [], 0.05)
            try:
                if self._master in ready:
                    self._far.sendall(self._spoil(os.read(self._master, 65536)))
                if self._far.fileno() in ready:
                    os.write(self._master, self._spoil(self._far.recv(65536)))
            except OSError:
                return

    def _spoil(self, data: bytes) -> bytes:
        out = bytearray()
        for byte in data:
            draw = self._random.random()
            if draw < self.noise:
                self.spoilt += 1
                if draw < self.noise / 2:
                    out.append(self._random.randrange(256))
            else:
                out.append(byte)
        return bytes(out)

    def cut(self) -> None:
        self._stop.set()
        self._carrier.join()

    def close(self) -> None:
        self._child.kill()
        self._child.wait()
        self._stop.set()
        self._carrier.join()
        os.close(self._master)
        self._far.close()
        self.console.close()
