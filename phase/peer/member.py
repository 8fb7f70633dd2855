"""One endpoint that is connected to a relay: what waits for it, how much it may send, whether it lives."""

import asyncio
import os
import random
from collections import Counter, deque
from dataclasses import dataclass, field
from time import monotonic

from aiohttp import web

from phase.peer import frames
from phase.peer.pace import Pace


@dataclass(frozen=True)
class Limits:
    """What a relay gives.

    Attributes:
        members: endpoints connected, in all.
        per_key: connections of one key; the newest gets the datagrams.
        per_address: connections of one IP address, or of one /64 of IPv6.
        handshakes: handshakes at a time.
        handshake_seconds: for one of them.
        member_rate: bytes a second that one endpoint may send; it is slowed down to that.
        pair_rate: bytes a second that one endpoint may send to one other; the rest is dropped.
        burst_seconds: seconds of a rate that may be saved up.
        peers: others that one endpoint may send to while it is connected.
        waiting_frames: that wait for one endpoint; further datagrams to it are dropped.
        waiting_bytes: the same, in bytes.
        all_bytes: that wait for all endpoints together.
        send_seconds: an endpoint that takes nothing for so long is cut off.
        ping_seconds: an endpoint that was not heard for so long is asked for a sign of life.
        pong_seconds: for its answer.
        revoke_seconds: between two looks at who is still allowed.
    """

    members: int = 256
    per_key: int = 2
    per_address: int = 64
    handshakes: int = 32
    handshake_seconds: float = 10.0
    member_rate: float = 64 << 20
    pair_rate: float = 64 << 20
    burst_seconds: float = 1.0
    peers: int = 256
    waiting_frames: int = 1024
    waiting_bytes: int = 2 << 20
    all_bytes: int = 64 << 20
    send_seconds: float = 10.0
    ping_seconds: float = 15.0
    pong_seconds: float = 5.0
    revoke_seconds: float = 2.0


@dataclass
class Counts:
    """What a relay has done.

    Attributes:
        received: bytes of datagrams that came in.
        sent: bytes that went out.
        waiting: bytes that wait for all endpoints now.
        handshakes: under way now.
        accepted: endpoints that were let in.
        refused: endpoints that were not, by the reason.
        dropped: frames that were not passed on, by the reason.
        ended: connections that the relay has ended, by the reason.
    """

    received: int = 0
    sent: int = 0
    waiting: int = 0
    handshakes: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)


class Member:
    """One connection.

    Args:
        key: of the endpoint, proven.
        socket: the WebSocket.
        transport: beneath it.
        client: what its address counts for.
        limits: see there.
        counts: see there.
    """

    def __init__(
        self,
        key: bytes,
        socket: web.WebSocketResponse,
        transport: asyncio.BaseTransport | None,
        client: str,
        limits: Limits,
        counts: Counts,
    ) -> None:
        self.key, self.client, self.pace = key, client, _pace(limits.member_rate, limits)
        #: Those it has sent to, and what it may still send to each.
        self.peers: dict[bytes, Pace] = {}
        self.heard_at = monotonic()
        self.pinged = b""
        self._socket, self._transport = socket, transport
        self._limits, self._counts = limits, counts
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._more = asyncio.Event()
        self.over = False

    def put(self, frame: bytes, *, control: bool = False) -> bool:
        """Send a frame later; returns whether there was room for it.

        Args:
            frame: whole.
            control: not a datagram: it is short, and there is more room for it.
        """
        frames_, bytes_ = len(self._waiting), self._bytes + len(frame)
        limits = self._limits
        if control:
            full = frames_ >= 2 * limits.waiting_frames
        else:
            full = frames_ >= limits.waiting_frames or bytes_ > limits.waiting_bytes
        if full or self._counts.waiting + len(frame) > limits.all_bytes:
            return False
        self._waiting.append(frame)
        self._bytes = bytes_
        self._counts.waiting += len(frame)
        self._more.set()
        return True

    def tell(self, said: frames.Status) -> None:
        """Tell the endpoint about its connection."""
        self.put(frames.status(said, self._socket.ws_protocol or ""), control=True)

    def may_send(self, to: bytes, size: int) -> str:
        """Whether it may send so many bytes to another now; otherwise why not."""
        pace = self.peers.get(to)
        if pace is None:
            if len(self.peers) >= self._limits.peers:
                return "too many peers"
            pace = self.peers[to] = _pace(self._limits.pair_rate, self._limits)
        return "" if pace.spend(size) else "pair too fast"

    async def send_waiting(self) -> None:
        """Send what waits, until it is cancelled or the endpoint takes nothing."""
        while True:
            while self._waiting:
                frame = self._waiting.popleft()
                self._bytes -= len(frame)
                self._counts.waiting -= len(frame)
                try:
                    async with asyncio.timeout(self._limits.send_seconds):
                        await self._socket.send_bytes(frame)
                except TimeoutError:
                    return self.cut("takes nothing")
                except (ConnectionError, RuntimeError):
                    return self.cut("has left")
                self._counts.sent += len(frame)
            self._more.clear()
            await self._more.wait()

    async def watch(self) -> None:
        """Ask for a sign of life when there is none, until it is cancelled or there is no answer."""
        limits = self._limits
        while True:
            # Not all at the same time.
            await asyncio.sleep(limits.ping_seconds * random.uniform(1.0, 1.3))  # noqa: S311
            if monotonic() - self.heard_at < limits.ping_seconds:
                continue
            self.pinged = os.urandom(8)
            self.put(frames.ping(self.pinged), control=True)
            await asyncio.sleep(limits.pong_seconds)
            if self.pinged:
                return self.cut("gives no sign of life")

    def cut(self, why: str) -> None:
        """End the connection now.

        Args:
            why: to be counted.
        """
        if not self.over:
            self._counts.ended[why] += 1
            self.leave()
            if self._transport is not None and isinstance(self._transport, asyncio.WriteTransport):
                self._transport.abort()

    def leave(self) -> None:
        """Forget what waits."""
        self.over = True
        self._counts.waiting -= self._bytes
        self._waiting.clear()
        self._bytes = 0


def _pace(rate: float, limits: Limits) -> Pace:
    return Pace(rate, rate * limits.burst_seconds)
