"""An Ethernet switch between machines, in one thread of this process.

Each machine's network card is a pair of UNIX datagram sockets (QEMU's `-netdev dgram`): one frame,
one datagram. The switch learns addresses as any switch does. A port can also be a service living in
this process, such as the DHCP server.
"""

import errno
import os
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

MAX_FRAME = 65_535
#: Frames kept for a port whose machine does not read; beyond that they are lost, as on any switch.
_QUEUE = 2048
_BATCH = 256

#: A service gets every frame that is not for another port, and returns frames to send.
Service = Callable[[bytes], list[bytes]]


class Port:
    """One end of a cable.

    Attributes:
        received: frames that came from the machine.
        sent: frames handed to it.
        dropped: frames lost on the way to it.
        partitioned: while true, nothing passes, and nobody is told.
    """

    def __init__(self, name: str, here: Path, there: Path) -> None:
        self.name = name
        self.here = here
        self.there = there
        self.received = self.sent = self.dropped = 0
        self.partitioned = False
        self.queue: deque[bytes] = deque()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            self.socket.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
        self.socket.bind(str(here))


class Switch:
    """A segment.

    Args:
        name: for messages and files.
        directory: where its sockets and capture go.
    """

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.capture = directory / f"{name}.pcap"
        self.ports: dict[str, Port] = {}
        self._directory = directory
        self._services: list[Service] = []
        self._table: dict[bytes, Port] = {}
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._wake, self._woken = os.pipe()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._file: BinaryIO = self.capture.open("wb")
        # pcap, microseconds, link type Ethernet (draft-ietf-opsawg-pcap).
        self._file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, MAX_FRAME, 1))
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"switch-{name}", daemon=True)
        self._thread.start()

    def attach(self, name: str) -> Port:
        """A new port.

        Args:
            name: unique on this segment.

        Returns:
            The port; QEMU's local socket is `there`, its remote one `here`.
        """
        base = self._directory / f"{self.name}-{name}"
        with self._lock:
            port = Port(name, base.with_suffix(".sw"), base.with_suffix(".vm"))
            self.ports[name] = port
            self._selector.register(port.socket, selectors.EVENT_READ, port)
        os.write(self._woken, b"x")
        return port

    def detach(self, name: str) -> None:
        """Take a port away, with its sockets."""
        with self._lock:
            port = self.ports.pop(name)
            self._selector.unregister(port.socket)
            self._table = {mac: other for mac, other in self._table.items() if other is not port}
        port.socket.close()
        port.here.unlink(missing_ok=True)
        port.there.unlink(missing_ok=True)

    def add_service(self, service: Service) -> None:
        """Put a service on the segment."""
        self._services.append(service)

    def close(self) -> None:
        """Stop, and remove every socket."""
        self._stopping = True
        os.write(self._woken, b"x")
        self._thread.join(timeout=5)
        for name in list(self.ports):
            self.detach(name)
        self._selector.close()
        os.close(self._wake)
        os.close(self._woken)
        self._file.close()

    def _run(self) -> None:
        while not self._stopping:
            events = self._selector.select(timeout=1.0)
            with self._lock:
                for key, mask in events:
                    if key.data is None:
                        os.read(self._wake, 64)
                        continue
                    if key.fileobj not in self._selector.get_map():
                        continue
                    if mask & selectors.EVENT_WRITE:
                        self._flush(key.data)
                    if mask & selectors.EVENT_READ:
                        self._receive(key.data)

    def _receive(self, port: Port) -> None:
        """Take a batch: the select call costs more than a frame does."""
        for _ in range(_BATCH):
            try:
                frame = port.socket.recv(MAX_FRAME)
            except BlockingIOError:
                return
            except OSError:
                return
            if len(frame) < 14:
                continue
            port.received += 1
            self._record(frame)
            if port.partitioned:
                port.dropped += 1
                continue
            self._table[frame[6:12]] = port
            self._forward(frame, port)

    def _forward(self, frame: bytes, source: Port | None) -> None:
        target = self._table.get(frame[:6])
        if target is not None:
            if target is not source:
                self._send(target, frame)
            return
        for port in self.ports.values():
            if port is not source:
                self._send(port, frame)
        if source is not None:
            for service in self._services:
                for answer in service(frame):
                    self._record(answer)
                    self._forward(answer, None)

    def _send(self, port: Port, frame: bytes) -> None:
        if port.partitioned:
            port.dropped += 1
        elif port.queue:
            self._enqueue(port, frame)
        elif not self._try(port, frame):
            self._enqueue(port, frame)
            self._selector.modify(port.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, port)

    def _try(self, port: Port, frame: bytes) -> bool:
        """Hand a frame over; False when the machine must first read."""
        try:
            port.socket.sendto(frame, str(port.there))
            port.sent += 1
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                return False
            # Not there yet, or switched off: a cable with nobody at the other end.
            port.dropped += 1
        return True

    def _enqueue(self, port: Port, frame: bytes) -> None:
        if len(port.queue) >= _QUEUE:
            port.dropped += 1
        else:
            port.queue.append(frame)

    def _flush(self, port: Port) -> None:
        while port.queue:
            if not self._try(port, port.queue[0]):
                return
            port.queue.popleft()
        self._selector.modify(port.socket, selectors.EVENT_READ, port)

    def _record(self, frame: bytes) -> None:
        now = time.time()
        seconds = int(now)
        # Beyond the headers a release's bytes would fill the disk.
        kept = frame[:256]
        self._file.write(
            struct.pack("<IIII", seconds, int((now - seconds) * 1e6), len(kept), len(frame)) + kept
        )
