"""What a client sends of a job before it is queued: its request, module, files and input."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from phase.jobs.job import MAX_ARGUMENT_BYTES, MAX_ARGUMENTS
from phase.jobs.receipt import Content
from phase.node.blobs import Blobs
from phase.node.disk import Disk
from phase.node.errors import RefusedError
from phase.node.room import Room
from phase.peer.framing import MAX_MESSAGE, SECONDS, Frames, Kind, ProtocolError, file_part
from phase.peer.messages import MAX_OFFER, Offer, Reason, Request, read

#: The slowest sender: bytes a second, after the first seconds.
LEAST_RATE = 16 << 10
#: Seconds from one frame to the next.
SILENT_SECONDS = 15.0
#: Bytes of modules on their way, of one client and of all.
MODULE_BYTES = 64 << 20, 256 << 20
#: Seconds for which a job waits for a module that its client sends for another; then it asks for it, too.
SAME_SECONDS = 5.0


class Modules:
    """Modules that are here, or come.

    Args:
        blobs: those that are here.
        disk: threads for them.
    """

    def __init__(self, blobs: Blobs, disk: Disk) -> None:
        self._blobs, self._disk, self._room = blobs, disk, Room(*MODULE_BYTES)
        self._coming: dict[tuple[str, str], asyncio.Event] = {}

    async def find(self, client: str, sha256: str) -> bytes | None:
        """A module of this client that is here, or is on its way; None if it must be sent."""
        coming = self._coming.get((client, sha256))
        if coming is not None:
            try:
                async with asyncio.timeout(SAME_SECONDS):
                    await coming.wait()
            except TimeoutError:
                return None
        return await self.blob(client, sha256)

    async def blob(self, client: str, sha256: str) -> bytes | None:
        """What this client has brought before; None if it is not here."""
        found = self._blobs.here(client, sha256)
        if found is None and self._blobs.has(client, sha256):
            found = await self._disk.run(self._blobs.get, client, sha256)
        return found

    async def keep(self, client: str, sha256: str, data: bytes) -> None:
        """Keep what a client has brought, whose hash is checked."""
        await self._disk.run(self._blobs.put, client, sha256, data)

    @asynccontextmanager
    async def coming(self, client: str, offer: Offer) -> AsyncIterator[None]:
        """Have other jobs of this client wait for the module that one brings.

        Raises:
            RefusedError: too much is on its way.
        """
        key, done = (client, offer.module.sha256), asyncio.Event()
        with self._room.taken(client, offer.module.length):
            self._coming.setdefault(key, done)
            try:
                yield
            finally:
                if self._coming.get(key) is done:
                    del self._coming[key]
                done.set()

    async def receive(self, client: str, frames: Frames, offer: Offer) -> bytes:
        """Receive a module.

        Raises:
            ProtocolError: something else came, or too slowly.
        """
        data = await _module(frames, offer)
        await self.keep(client, offer.module.sha256, data)
        return data


async def request(frames: Frames) -> Request:
    """What follows an offer.

    Raises:
        ProtocolError: it is not that.
        RefusedError: it has too many words.
    """
    found = await frames.receive(message=MAX_MESSAGE)
    if found is None or found.kind is not Kind.MESSAGE:
        raise ProtocolError("an offer is followed by its request")
    request = read(found.data, Request)
    check_words(request)
    return request


def check_words(request: Request) -> None:
    """Refuse arguments and variables that no job may have.

    Raises:
        RefusedError: there are too many.
    """
    words = [*request.args, *(word for pair in request.env.items() for word in pair)]
    size = sum(len(word.encode("utf-8", "replace")) for word in words)
    if len(words) >= MAX_ARGUMENTS or size > MAX_ARGUMENT_BYTES:
        raise RefusedError(
            Reason.INVALID_REQUEST,
            f"arguments and variables have {len(words)} words and {size} bytes; "
            f"the limits are {MAX_ARGUMENTS - 1} and {MAX_ARGUMENT_BYTES}",
        )


async def _parts(frames: Frames, kind: Kind, length: int, sha256: str = "") -> bytes:
    """Bytes of a known length, in frames of one kind, in the time that the slowest client may take.

    They are hashed as they come: all at once would stop the event loop for as long as it takes.
    """
    data, hashed = bytearray(), hashlib.sha256()
    try:
        async with asyncio.timeout(SECONDS + length / LEAST_RATE):
            while len(data) < length:
                found = await frames.receive(seconds=SILENT_SECONDS, message=MAX_OFFER)
                if found is None or found.kind is not kind or not found.data:
                    raise ProtocolError(f"{kind.name.lower()} ended after {len(data)} of {length} bytes")
                data += found.data
                if sha256:
                    hashed.update(found.data)
    except TimeoutError:
        raise ProtocolError(f"{kind.name.lower()} came too slowly: {len(data)} of {length} bytes") from None
    if len(data) > length:
        raise ProtocolError(f"{kind.name.lower()} has more than its {length} bytes")
    if sha256 and hashed.hexdigest() != sha256:
        raise ProtocolError(f"the {kind.name.lower()} does not have the hash that was offered")
    return bytes(data)


async def _module(frames: Frames, offer: Offer) -> bytes:
    return await _parts(frames, Kind.MODULE, offer.module.length, offer.module.sha256)


async def file(frames: Frames, name: str, content: Content) -> bytes:
    """An input file, as the offer described it.

    Raises:
        ProtocolError: something else came, or too slowly.
    """
    data, hashed = bytearray(), hashlib.sha256()
    try:
        async with asyncio.timeout(SECONDS + content.length / LEAST_RATE):
            while not data or len(data) < content.length:
                found = await frames.receive(seconds=SILENT_SECONDS, message=MAX_OFFER)
                if found is None or found.kind is not Kind.FILE:
                    raise ProtocolError(f"an input file ended after {len(data)} of {content.length} bytes")
                of, part = file_part(found.data)
                if of != name or (content.length and not part):
                    raise ProtocolError("the input files come in another order, or not at all")
                data += part
                hashed.update(part)
                if not content.length:
                    break
    except TimeoutError:
        raise ProtocolError(f"an input file came too slowly: {len(data)} bytes") from None
    if hashed.hexdigest() != content.sha256:
        raise ProtocolError("an input file does not have the hash that was offered")
    return bytes(data)


async def whole_input(frames: Frames, length: int) -> bytes:
    """The input of a job that needs all of it before it starts.

    Raises:
        ProtocolError: something else came, or too slowly.
    """
    return await _parts(frames, Kind.STDIN, length) if length else b""
