"""An Ethernet switch between machines, in one thread of this process.

Each machine's network card is a pair of UNIX datagram sockets (QEMU's `-netdev dgram`): one frame,
one datagram. The switch learns addresses as any switch does. A port can also be a service living in
this process, such as the DHCP server.
"""

import contextlib
import errno
import os
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from lab.errors import MisuseError
from lab.net.capture import Capture

MAX_FRAME = 16_384
#: Frames kept for a port whose machine does not read; beyond that they are lost, as on any switch.
_QUEUE = 2048
_BATCH = 256

#: A service gets every frame that is not for another port, and returns frames to send.
Service = Callable[[bytes], list[bytes]]


class Port:
    """One end of a cable.

    Attributes:
        here: the switch's socket; QEMU sends to it.
        there: QEMU's own socket.
        received: frames that came from the machine.
        sent: frames handed to it.
        dropped: frames lost on the way from it or to it.
        partitioned: while true, nothing passes, and nobody is told.
        drop: asked for every frame in either direction, when set; true loses it.
    """

    def __init__(self, name: str, here: Path, there: Path) -> None:
        self.name = name
        self.here = here
        self.there = there
        self.received = self.sent = self.dropped = 0
        self.partitioned = False
        self.drop: Callable[[bytes], bool] | None = None
        self.queue: deque[bytes] = deque()
        self.incoming = _socket()
        self.incoming.bind(str(here))
        # A socket of its own for sending, connected: only then does the kernel say when a full machine
        # reads again. Were it the other one, a machine that is started anew could not send to us.
        self.outgoing = _socket()

    def blocks(self, frame: bytes) -> bool:
        """Whether a fault takes this frame."""
        return self.partitioned or (self.drop is not None and self.drop(frame))

    def hand_over(self, frame: bytes) -> bool:
        """Hand a frame to the machine, or lose it when there is none; False when it must first read."""
        for _ in range(2):
            try:
                self.outgoing.send(frame)
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    return False
                try:
                    # Not connected yet, or to a machine that was switched off since.
                    self.outgoing.connect(str(self.there))
                except OSError:
                    break
            else:
                self.sent += 1
                return True
        self.dropped += 1
        return True

    def close(self) -> None:
        """Remove it, with its sockets."""
        self.incoming.close()
        self.outgoing.close()
        self.here.unlink(missing_ok=True)
        self.there.unlink(missing_ok=True)


class Switch:
    """A segment.

    Args:
        name: for messages and files.
        directory: where its sockets and capture go.

    Attributes:
        ports: by machine.
        failure: what ended the switch's thread, if anything did.
    """

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.ports: dict[str, Port] = {}
        self.failure: BaseException | None = None
        self._directory = directory
        self._services: list[Service] = []
        self._table: dict[bytes, Port] = {}
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._wake, self._woken = os.pipe()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._capture = Capture(directory / f"{name}.pcap")
        self._made = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"switch-{name}", daemon=True)
        self._thread.start()

    @property
    def frames(self) -> dict[str, int]:
        """Frames that each port's machine has sent."""
        return {name: port.received for name, port in self.ports.items()}

    def capture(self) -> Path:
        """A pcap file of everything so far; each frame's first 256 bytes."""
        with self._lock:
            return self._capture.flushed()

    def attach(self, name: str) -> Port:
        """A new port.

        Args:
            name: unique on this segment.

        Returns:
            The port; QEMU's local socket is `there`, its remote one `here`.

        Raises:
            MisuseError: there is a port of that name.
        """
        with self._lock:
            if name in self.ports:
                raise MisuseError(f"{name} is on the segment {self.name} already")
            base = self._directory / f"{self.name}-{self._made}"
            self._made += 1
            port = Port(name, base.with_suffix(".sw"), base.with_suffix(".vm"))
            self.ports[name] = port
            self._selector.register(port.incoming, selectors.EVENT_READ, port)
        os.write(self._woken, b"x")
        return port

    def detach(self, name: str) -> None:
        """Take a port away, with its sockets."""
        with self._lock:
            port = self.ports.pop(name)
            self._selector.unregister(port.incoming)
            if port.queue:
                self._selector.unregister(port.outgoing)
            self._table = {mac: other for mac, other in self._table.items() if other is not port}
            port.close()

    def add_service(self, service: Service) -> None:
        """Put a service on the segment."""
        with self._lock:
            self._services.append(service)

    def close(self) -> None:
        """Stop, and remove every socket.

        Raises:
            BaseException: what ended the switch before its time.
        """
        self._stopping = True
        # Its reader is gone when the thread is.
        with contextlib.suppress(OSError):
            os.write(self._woken, b"x")
        self._thread.join(timeout=5)
        for name in list(self.ports):
            self.detach(name)
        self._selector.close()
        os.close(self._wake)
        os.close(self._woken)
        self._capture.close()
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            while not self._stopping:
                events = self._selector.select()
                with self._lock:
                    for key, mask in events:
                        self._serve(key, mask)
        except BaseException as error:
            # Nobody waits for this thread; who closes the switch is told.
            self.failure = error

    def _serve(self, key: selectors.SelectorKey, mask: int) -> None:
        port: Port | None = key.data
        if port is None:
            os.read(self._wake, 64)
        elif self.ports.get(port.name) is port:
            if mask & selectors.EVENT_WRITE:
                self._flush(port)
            else:
                self._receive(port)

    def _receive(self, port: Port) -> None:
        """Take a batch: the select call costs more than a frame does."""
        for _ in range(_BATCH):
            try:
                frame = port.incoming.recv(MAX_FRAME)
            except OSError:
                return
            if len(frame) < 14:
                continue
            port.received += 1
            self._capture.add(frame)
            if port.blocks(frame):
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
                    self._capture.add(answer)
                    self._forward(answer, None)

    def _send(self, port: Port, frame: bytes) -> None:
        if port.blocks(frame):
            port.dropped += 1
        elif port.queue:
            if len(port.queue) < _QUEUE:
                port.queue.append(frame)
            else:
                port.dropped += 1
        elif not port.hand_over(frame):
            port.queue.append(frame)
            self._selector.register(port.outgoing, selectors.EVENT_WRITE, port)

    def _flush(self, port: Port) -> None:
        while port.queue:
            if not port.hand_over(port.queue[0]):
                return
            port.queue.popleft()
        self._selector.unregister(port.outgoing)


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.setblocking(False)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        made.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
    return made
