"""A relay: passes encrypted datagrams between endpoints that cannot reach each other.

It keeps the protocol of iroh's relays over a WebSocket at `/relay`, on the port of any aiohttp application.
It sees who talks to whom and how much, and none of the content. An endpoint proves its key first.
"""

import asyncio
import contextlib
import logging
import os
from collections import Counter
from collections.abc import Callable
from time import monotonic

from aiohttp import WSMsgType, web

from phase.peer import frames
from phase.peer.member import Counts, Limits, Member
from phase.provider import guard
from phase.provider.background import Background
from phase.provider.limits import client_of
from phase.provider.metrics import Values
from phase.provider.problems import problem

__all__ = ["Limits", "Relay"]
_log = logging.getLogger(__name__)
#: Seconds between two log lines about refusals of one kind.
_SAY_SECONDS = 1.0
_OVER = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)
#: What a relay is asked by endpoints that look for a portal in between.
_MAX_ECHO = 64


class Relay:
    """A relay.

    Args:
        allowed: whether a key may use it, 64 hex digits; asked again and again while the key is connected.
        limits: see there.
    """

    def __init__(self, allowed: Callable[[str], bool], limits: Limits | None = None) -> None:
        self._allowed, self._background = allowed, Background()
        self.limits = limits or Limits()
        self.counts = Counts()
        #: By key; the last connection of a key gets the datagrams.
        self._members: dict[bytes, list[Member]] = {}
        self._clients: Counter[str] = Counter()
        self._said_at: dict[str, float] = {}
        self._ending = False

    def routes(self) -> list[web.RouteDef]:
        """The routes for an application."""
        return [
            web.get("/relay", self.connect),
            web.get("/ping", self.ping),
            web.get("/generate_204", self.nothing),
            web.get("/seen", self.seen),
        ]

    def start(self, background: Background) -> None:
        """Look now and then whether those who are connected are still allowed.

        Args:
            background: runs that, and the tasks of connections.
        """
        self._background = background
        background.repeat("revoking of the relay", self._revoke, self.limits.revoke_seconds)

    def end(self) -> None:
        """Let nobody in any more, and end all connections."""
        self._ending = True
        for member in self._all():
            member.cut("the relay stops")

    def keys(self) -> list[str]:
        """Who is connected, 64 hex digits each."""
        return [key.hex() for key in self._members]

    def metrics(self) -> dict[str, tuple[str, Values]]:
        """For `phase.provider.metrics`."""
        counts = self.counts
        return {
            "phase_relay_members": ("Endpoints connected to the relay.", len(self._members)),
            "phase_relay_handshakes": ("Handshakes of endpoints under way.", counts.handshakes),
            "phase_relay_waiting_bytes": ("Bytes that wait for endpoints.", counts.waiting),
            "phase_relay_accepted_total": ("Endpoints let in.", counts.accepted),
            "phase_relay_received_bytes_total": ("Bytes of datagrams received.", counts.received),
            "phase_relay_sent_bytes_total": ("Bytes of frames sent.", counts.sent),
            "phase_relay_refused_total": ("Endpoints refused, by reason.", _by("reason", counts.refused)),
            "phase_relay_dropped_total": ("Frames dropped, by reason.", _by("reason", counts.dropped)),
            "phase_relay_ended_total": ("Connections ended, by reason.", _by("reason", counts.ended)),
        }

    async def ping(self, request: web.Request) -> web.StreamResponse:
        """Answer an endpoint that measures the way here."""
        return web.Response()

    async def nothing(self, request: web.Request) -> web.StreamResponse:
        """Answer an endpoint that looks for a portal in between; it sends a word that is given back."""
        word = request.headers.get("X-Iroh-Challenge", "")
        good = 0 < len(word) < _MAX_ECHO and all(c.isascii() and (c.isalnum() or c in ".-_:") for c in word)
        return web.Response(status=204, headers={"X-Iroh-Response": f"response {word}"} if good else {})

    async def seen(self, request: web.Request) -> web.StreamResponse:
        """Tell an endpoint the address that its packets come from."""
        return web.json_response({"address": request.remote or ""}, headers={"Cache-Control": "no-store"})

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """Serve one endpoint from its handshake to its end."""
        client = client_of((request.remote,))
        if why := self._full(client):
            self._refuse(why, client)
            return problem(503, f"the relay refuses: {why}")
        socket = web.WebSocketResponse(
            protocols=frames.PROTOCOLS, compress=False, max_msg_size=frames.MAX_CONTENT + 2, autoclose=False
        )
        if not socket.can_prepare(request).protocol:
            self._refuse("no relay protocol", client)
            return problem(400, f"this is a relay: it speaks {' or '.join(frames.PROTOCOLS)}")
        self._clients[client] += 1
        # Whoever watches over the connection is not to take it for an idle one.
        watched = guard.of(request)
        if watched is not None:
            watched.request_started()
        try:
            await self._serve(request, socket, client)
        finally:
            if watched is not None:
                watched.request_done()
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]
        return socket

    def _full(self, client: str) -> str:
        """Why there is no room for one more; empty if there is."""
        limits = self.limits
        if self._ending:
            return "it stops"
        if self.counts.handshakes >= limits.handshakes:
            return "too many handshakes"
        if self._clients.total() >= limits.members:
            return "too many endpoints"
        if self._clients[client] >= limits.per_address:
            return "too many endpoints of one address"
        return ""

    async def _serve(self, request: web.Request, socket: web.WebSocketResponse, client: str) -> None:
        self.counts.handshakes += 1
        try:
            async with asyncio.timeout(self.limits.handshake_seconds):
                await socket.prepare(request)
                key = await self._handshake(socket, client)
        except TimeoutError:
            self._refuse("the handshake took too long", client)
            key = None
        finally:
            self.counts.handshakes -= 1
        if key is None:
            # A stranger is not waited for.
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(1.0):
                    await socket.close(drain=False)
            if request.transport is not None:
                request.transport.close()
            return
        member = Member(key, socket, request.transport, client, self.limits, self.counts)
        self._enter(member)
        tasks = [
            self._background.once("a relay's sender", member.send_waiting()),
            self._background.once("a relay's watch", member.watch()),
        ]
        try:
            await self._read(socket, member)
        finally:
            for task in tasks:
                task.cancel()
            self._leave(member)

    async def _handshake(self, socket: web.WebSocketResponse, client: str) -> bytes | None:
        """The key of an endpoint that has proven it and is allowed."""
        random = os.urandom(frames.CHALLENGE_BYTES)
        try:
            await socket.send_bytes(frames.challenge(random))
            message = await socket.receive()
            key = frames.prover(message.data if message.type is WSMsgType.BINARY else b"", random)
            why = "" if self._allowed(key.hex()) else "not authorized"
        except frames.FrameError as error:
            key, why = b"", error.what
        except ConnectionError:
            self._refuse("has left", client)
            return None
        if why:
            self._refuse(why, f"{client} {key.hex()}")
            with contextlib.suppress(ConnectionError):
                await socket.send_bytes(frames.denial(why))
            return None
        await socket.send_bytes(frames.confirmation())
        return key

    async def _read(self, socket: web.WebSocketResponse, member: Member) -> None:
        while not member.over:
            message = await socket.receive()
            if message.type in _OVER:
                return
            if message.type is not WSMsgType.BINARY:
                return member.cut("sends text")
            member.heard_at = monotonic()
            try:
                self.take(message.data, member)
            except frames.FrameError as error:
                _log.info("the endpoint %s is cut off: %s", member.key.hex(), error)
                return member.cut("bad frame")
            if wait := member.pace.take(len(message.data)):
                # What it sends meanwhile waits in its own machine.
                await asyncio.sleep(wait)

    def take(self, data: bytes, member: Member) -> None:
        """Do what a frame asks for.

        Args:
            data: the frame.
            member: who has sent it.

        Raises:
            FrameError: it is none.
        """
        frame = frames.read(data)
        if isinstance(frame, frames.Ping):
            self._answer(frame, member)
        else:
            self._pass_on(frame, member)

    def _answer(self, frame: frames.Ping, member: Member) -> None:
        if frame.kind is frames.Type.PING:
            if not member.put(frames.ping(frame.data, frames.Type.PONG), control=True):
                member.cut("takes no answers")
        elif frame.data == member.pinged:
            member.pinged = b""

    def _pass_on(self, frame: frames.Datagrams, member: Member) -> None:
        size = len(frame.rest)
        self.counts.received += size
        to = self._members.get(frame.to)
        if to is None:
            self.counts.dropped["not connected"] += 1
        elif why := member.may_send(frame.to, size):
            self.counts.dropped[why] += 1
        elif not to[-1].put(frames.passed_on(frame.kind, member.key) + frame.rest):
            self.counts.dropped["receiver too slow"] += 1

    def _enter(self, member: Member) -> None:
        mine = self._members.setdefault(member.key, [])
        while len(mine) >= self.limits.per_key:
            mine.pop(0).cut("too many connections of the key")
        if mine:
            mine[-1].tell(frames.Status.SAME_KEY)
        mine.append(member)
        self.counts.accepted += 1
        _log.info("the endpoint %s is connected from %s", member.key.hex(), member.client)

    def _leave(self, member: Member) -> None:
        member.leave()
        mine = self._members.get(member.key, [])
        if member not in mine:
            return
        newest = mine[-1] is member
        mine.remove(member)
        _log.info("the endpoint %s has left", member.key.hex())
        if mine:
            if newest:
                mine[-1].tell(frames.Status.HEALTHY)
            return
        del self._members[member.key]
        for key in member.peers:
            for peer in self._members.get(key, [])[-1:]:
                peer.put(frames.gone(member.key), control=True)

    async def _revoke(self) -> None:
        for member in self._all():
            if not self._allowed(member.key.hex()):
                _log.info("the endpoint %s is not allowed any more", member.key.hex())
                member.cut("not allowed any more")

    def _all(self) -> list[Member]:
        return [member for mine in self._members.values() for member in mine]

    def _refuse(self, why: str, who: str) -> None:
        self.counts.refused[why] += 1
        now = monotonic()
        if now - self._said_at.get(why, -_SAY_SECONDS) >= _SAY_SECONDS:
            self._said_at[why] = now
            _log.info("%s is refused (%d in all): %s", who, self.counts.refused[why], why)


def _by(label: str, counted: Counter[str]) -> dict[str, float]:
    return {f'{label}="{name}"': count for name, count in counted.items()}
