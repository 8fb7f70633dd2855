"""An Ethernet switch between machines, in one thread of this process.

Each machine's network card is a pair of UNIX datagram sockets (QEMU's `-netdev dgram`): one frame,
one datagram. The switch learns addresses as any switch does. A port can also be a node living in this
process, such as the DHCP server or a router. Each direction of each cable has faults of its own.

The way of a frame, from machine A to machine B:

    QEMU of A --> A's Port.incoming
                    _receive  (a Node's frames come through Switch.enter)
                    _arrive   counted; captured as inbound
                    | A's outward lane: lost, late, twice, changed, out of order
                    _forward  learns A's address; picks B's link by its address, or every other link
                    _send
                    | B's inward lane: the same faults, B's own
                    _hand_over  captured as outbound; waits in B's queue while B does not read
    QEMU of B <-- B's Port.outgoing  (a Node: its service is asked, and may answer at once)

What a lane delays waits in `Waiting` and goes on from where it was when its time comes.
"""

import contextlib
import errno
import os
import selectors
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from lab.errors import InfrastructureError, MisuseError
from lab.net.capture import SUFFIX, Capture
from lab.net.faults import NONE, Faults, Lane, Waiting

MAX_FRAME = 16_384
_SHORTEST = 14
#: Frames kept for a port whose machine does not read; beyond that they are lost, as on any switch.
_QUEUE = 2048
_BATCH = 256

#: A service gets every frame that a machine in its place would, and returns frames to send.
Service = Callable[[bytes], list[bytes]]


class Link(ABC):
    """One end of a cable: counters, and faults to set at any time.

    Args:
        name: of what is plugged in.
        number: its interface in the capture.
        seed: what its random numbers come from.

    Attributes:
        received: frames that came from the machine.
        sent: frames handed to it.
        dropped: frames lost on the way from it or to it.
    """

    def __init__(self, name: str, number: int, seed: str) -> None:
        self.name = name
        self.number = number
        self.received = self.sent = self.dropped = 0
        self.outward = Lane(f"{seed}/from")
        self.inward = Lane(f"{seed}/to")

    @property
    def to_machine(self) -> Faults:
        """What is wrong on the way to it."""
        return self.inward.faults

    @to_machine.setter
    def to_machine(self, faults: Faults) -> None:
        self.inward.faults = faults

    @property
    def from_machine(self) -> Faults:
        """What is wrong on the way from it."""
        return self.outward.faults

    @from_machine.setter
    def from_machine(self, faults: Faults) -> None:
        self.outward.faults = faults

    @property
    def partitioned(self) -> bool:
        """While true, nothing passes, and neither end is told."""
        return self.to_machine.partition and self.from_machine.partition

    @partitioned.setter
    def partitioned(self, partitioned: bool) -> None:
        self.to_machine = replace(self.to_machine, partition=partitioned)
        self.from_machine = replace(self.from_machine, partition=partitioned)

    @property
    def drop(self) -> Callable[[bytes], bool] | None:
        """Asked for every frame in either direction, when set; true loses it."""
        return self.inward.drop

    @drop.setter
    def drop(self, drop: Callable[[bytes], bool] | None) -> None:
        self.inward.drop = self.outward.drop = drop

    def heal(self) -> None:
        """End every fault."""
        self.to_machine = self.from_machine = NONE
        self.drop = None

    @abstractmethod
    def put(self, frame: bytes) -> bool:
        """Hand a frame to what is plugged in; False when it must first read what it has."""

    def close(self) -> None:  # noqa: B027  # most have nothing to remove
        """Remove it."""


class Node(Link):
    """A cable to something that lives in this process.

    Args:
        name: as for any link.
        number: as for any link.
        seed: as for any link.
        service: asked about every frame; runs in the switch's thread.
        switch: where it is plugged in.
    """

    def __init__(self, name: str, number: int, seed: str, service: Service, switch: "Switch") -> None:
        super().__init__(name, number, seed)
        self._service = service
        self._switch = switch

    def put(self, frame: bytes) -> bool:
        """Ask the service, and send what it answers."""
        self.sent += 1
        for answer in self._service(frame):
            self.send(answer)
        return True

    def send(self, frame: bytes) -> None:
        """Send a frame; may be called by any thread."""
        self._switch.enter(self, frame)


class Port(Link):
    """A cable to a machine.

    Attributes:
        switch_socket: the one that QEMU sends to.
        machine_socket: QEMU's own.
    """

    def __init__(self, name: str, number: int, seed: str, switch_socket: Path, machine_socket: Path) -> None:
        super().__init__(name, number, seed)
        self.switch_socket = switch_socket
        self.machine_socket = machine_socket
        self.queue: deque[bytes] = deque()
        self.incoming = _socket()
        self.incoming.bind(str(switch_socket))
        # A socket of its own for sending, connected: only then does the kernel say when a full machine
        # reads again. Were it the other one, a machine that is started anew could not send to us.
        self.outgoing = _socket()

    def put(self, frame: bytes) -> bool:
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
                    self.outgoing.connect(str(self.machine_socket))
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
        self.switch_socket.unlink(missing_ok=True)
        self.machine_socket.unlink(missing_ok=True)


class Switch:
    """An Ethernet switch in one thread: it learns where addresses are, and floods what it does not know.

    Args:
        name: for messages and files.
        directory: where its sockets and capture go.
        seed: what the chances of its faults come from.

    Attributes:
        ports: by machine.
        nodes: what lives on the segment without being a machine.
        failure: what ended the switch's thread, if anything did.
    """

    def __init__(self, name: str, directory: Path, *, seed: int = 0) -> None:
        self.name = name
        self.ports: dict[str, Port] = {}
        self.failure: BaseException | None = None
        self._directory = directory
        self.nodes: dict[str, Node] = {}
        self._links: list[Link] = []
        self._table: dict[bytes, Link] = {}
        self._entering: deque[tuple[Node, bytes]] = deque()
        self._waiting = Waiting()
        self._seed = seed
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._wake, self._woken = os.pipe()
        os.set_blocking(self._woken, False)
        self._waking = threading.Lock()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._capture = Capture(directory / f"{name}{SUFFIX}")
        self._made = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"switch-{name}", daemon=True)
        self._thread.start()

    @property
    def frames(self) -> dict[str, int]:
        """Frames that each port's machine has sent."""
        return {name: port.received for name, port in self.ports.items()}

    @property
    def cut(self) -> int:
        """Frames that came after the capture was full."""
        return self._capture.cut

    def capture(self) -> Path:
        """A pcapng file of everything so far; each frame's first 256 bytes."""
        with self._lock:
            return self._capture.flushed()

    def attach(self, name: str) -> Port:
        """A new port.

        Args:
            name: unique on this segment.

        Returns:
            The port; QEMU's local socket is `machine_socket`, its remote one `switch_socket`.

        Raises:
            MisuseError: there is a port of that name.
        """
        with self._lock:
            self._check(name)
            base = self._directory / f"{self.name}-{self._made}"
            self._made += 1
            number = self._capture.link(name)
            port = Port(name, number, self._seed_of(name), base.with_suffix(".sw"), base.with_suffix(".vm"))
            self.ports[name] = port
            self._links.append(port)
            self._selector.register(port.incoming, selectors.EVENT_READ, port)
        self._poke()
        return port

    def detach(self, name: str) -> None:
        """Take a port away, with its sockets."""
        with self._lock:
            port = self.ports.pop(name)
            self._links.remove(port)
            self._selector.unregister(port.incoming)
            if port.queue:
                self._selector.unregister(port.outgoing)
            self._table = {mac: other for mac, other in self._table.items() if other is not port}
            port.close()

    def forget(self, port: Port) -> None:
        """Lose what is on its way to a machine: the next that is plugged in there is another."""
        with self._lock:
            if port.queue:
                port.dropped += len(port.queue)
                port.queue.clear()
                self._selector.unregister(port.outgoing)
            port.dropped += self._waiting.forget(port.inward)

    def add_service(self, service: Service, name: str = "service") -> Node:
        """Put a node on the segment.

        Args:
            service: called in the switch's thread with every frame that reaches the node; what it
                returns is sent.
            name: unique on this segment.

        Raises:
            MisuseError: the name is taken.
        """
        with self._lock:
            self._check(name)
            node = Node(name, self._capture.link(name), self._seed_of(name), service, self)
            self.nodes[name] = node
            self._links.append(node)
        return node

    def enter(self, node: Node, frame: bytes) -> None:
        """Take a frame from a node; may be called by any thread, and never waits."""
        if len(self._entering) >= _QUEUE:
            node.dropped += 1
            return
        self._entering.append((node, frame))
        if threading.current_thread() is not self._thread:
            self._poke()

    def _check(self, name: str) -> None:
        if name in self.ports or name in self.nodes:
            raise MisuseError(f"{name} is on the segment {self.name} already")

    def _seed_of(self, name: str) -> str:
        return f"{self._seed}/{self.name}/{name}"

    def _poke(self) -> None:
        # A full pipe wakes as well as one more byte would. After the end no thread is left to wake, and the
        # number may be another file's: a router's other segments still send here.
        with self._waking:
            if self._woken >= 0:
                with contextlib.suppress(BlockingIOError):
                    os.write(self._woken, b"x")

    def check(self) -> None:
        """See that it still works.

        Raises:
            InfrastructureError: it has ended: no frame passes any more.
        """
        if self.failure is not None:
            raise InfrastructureError(
                f"the segment {self.name} has ended, and nothing passes on it: {self.failure!r}"
            ) from self.failure

    def close(self) -> None:
        """Stop, and remove every socket.

        Raises:
            InfrastructureError: something had ended it before its time.
        """
        self._stopping = True
        self._poke()
        self._thread.join(timeout=5)
        for name in list(self.ports):
            self.detach(name)
        self._selector.close()
        with self._waking:
            woken, self._woken = self._woken, -1
        for end in (self._wake, woken):
            os.close(end)
        try:
            self._capture.close()
        except OSError as error:
            self.failure = self.failure or error
        self.check()

    def _run(self) -> None:
        try:
            while not self._stopping:
                left = 0.0 if self._entering else self._waiting.left(time.monotonic())
                events = self._selector.select(left)
                with self._lock:
                    for key, mask in events:
                        self._serve(key, mask)
                    self._waiting.release(time.monotonic())
                    for _ in range(len(self._entering)):
                        node, frame = self._entering.popleft()
                        self._arrive(node, frame)
        except BaseException as error:
            # No other thread waits for this one; `close` and `check` raise it.
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
            if len(frame) >= _SHORTEST:
                self._arrive(port, frame)

    def _arrive(self, link: Link, frame: bytes) -> None:
        """A frame comes from what is plugged in."""
        link.received += 1
        self._capture.add(link.number, "inbound", frame)
        if link.outward.active:
            self._delay(link, link.outward, partial(self._forward, link), frame)
        else:
            self._forward(link, frame)

    def _forward(self, source: Link, frame: bytes) -> None:
        self._table[frame[6:12]] = source
        target = self._table.get(frame[:6])
        if target is not None:
            if target is not source:
                self._send(target, frame)
            return
        for link in self._links:
            if link is not source:
                self._send(link, frame)

    def _send(self, link: Link, frame: bytes) -> None:
        """Send a frame to what is plugged in."""
        if link.inward.active:
            self._delay(link, link.inward, partial(self._hand_over, link), frame)
        else:
            self._hand_over(link, frame)

    def _delay(self, link: Link, lane: Lane, then: Callable[[bytes], None], frame: bytes) -> None:
        now = time.monotonic()
        arriving = lane.admit(frame, now)
        if not arriving:
            link.dropped += 1
        for due, changed in arriving:
            if due <= now:
                then(changed)
            else:
                self._waiting.add(due, lane, then, changed)

    def _hand_over(self, link: Link, frame: bytes) -> None:
        self._capture.add(link.number, "outbound", frame)
        if not isinstance(link, Port):
            link.put(frame)
        elif link.queue:
            if len(link.queue) < _QUEUE:
                link.queue.append(frame)
            else:
                link.dropped += 1
        elif self.ports.get(link.name) is link and not link.put(frame):
            link.queue.append(frame)
            self._selector.register(link.outgoing, selectors.EVENT_WRITE, link)

    def _flush(self, port: Port) -> None:
        while port.queue:
            if not port.put(port.queue[0]):
                return
            port.queue.popleft()
        self._selector.unregister(port.outgoing)


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.setblocking(False)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        made.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
    return made
