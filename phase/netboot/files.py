"""A read-only TFTP server for one segment. Its files are in a table: no name leads to a file system."""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address
from time import monotonic

from phase.netboot import sockets, tftp
from phase.netboot.cards import Card
from phase.netboot.rates import Rates
from phase.netboot.tftp import Problem, RequestError, Sending
from phase.provider.background import Background

#: Transfers at a time: of all readers of a segment, and of one.
MAX_TRANSFERS, MAX_OF_ONE = 64, 4
#: Requests of one address that are answered at once, and seconds for one more.
REQUESTS = (16, 1.0)
#: How often what is not answered is sent again.
TRIES = 6
#: Seconds for a transfer, and for each MiB of its file on top of that: 25 kB/s.
SECONDS, PER_MIB = 60.0, 40.0
#: Lines of the log at once, and seconds for one more.
LINES = (20, 1.0)
_TURN = 32
_log = logging.getLogger(__name__)
Reader = tuple[str, int]


class Files:
    """Serves files to the machines of one segment.

    Args:
        card: the segment.
        table: the files by name; asked anew for each request.
        tasks: where transfers run.

    Attributes:
        ended: transfers that have ended, by how: `done`, `failed`, `refused`.

    Raises:
        NetbootError: the port cannot be opened.
    """

    def __init__(self, card: Card, table: Callable[[], Mapping[str, bytes]], tasks: Background) -> None:
        self.ended: Counter[str] = Counter()
        self._card = card
        self._table = table
        self._tasks = tasks
        self._requests, self._lines = Rates(*REQUESTS), Rates(*LINES)
        self._readers: set[Reader] = set()
        self._socket = sockets.tftp(card)

    def start(self) -> None:
        """Take requests from now on."""
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def close(self) -> None:
        """Take no requests any more; transfers under way go on."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        for _ in range(_TURN):
            try:
                data, came = self._socket.recvfrom(tftp.MAX_REQUEST + 1)
            except OSError:
                # Nothing is left, or the card is gone.
                return
            self.take(data, came)

    def take(self, data: bytes, came: Reader) -> None:
        """Take a datagram. Only readers of the segment are answered: others may be forged."""
        if not self._card.has(IPv4Address(came[0])) or came in self._readers:
            return
        try:
            request = tftp.parse(data)
            if request is None or not self._requests.allow(came[0]):
                return
            content = self._found(request.name, came)
        except RequestError as refused:
            self._refuse(refused, came)
            return
        sending = Sending(content, tftp.agree(request, len(content)))
        self._readers.add(came)
        self._tasks.once("a transfer", self._transfer(came, request.name, sending, len(content)))

    def _found(self, name: str, came: Reader) -> bytes:
        content = self._table().get(name.removeprefix("/"))
        if content is None:
            raise RequestError(Problem.NO_FILE, "no such file")
        of_one = sum(host == came[0] for host, _ in self._readers)
        if len(self._readers) >= MAX_TRANSFERS or of_one >= MAX_OF_ONE:
            raise RequestError(Problem.OTHER, "too many transfers at a time; try again")
        return content

    def _refuse(self, refused: RequestError, came: Reader) -> None:
        # What cannot be read has not been counted yet.
        if refused.problem in (Problem.BAD, Problem.DENIED) and not self._requests.allow(came[0]):
            return
        self.ended["refused"] += 1
        try:
            sockets.send(
                self._socket, tftp.error(refused.problem, refused.text), came, self._card.address.ip
            )
        except OSError:
            return
        self._say(f"{came[0]} on {self._card.name} is refused a file: {refused.text}")

    async def _transfer(self, reader: Reader, name: str, sending: Sending, length: int) -> None:
        began, seconds = monotonic(), SECONDS + length / (1 << 20) * PER_MIB
        problem = ""
        try:
            with sockets.transfer(self._card, reader) as opened:
                async with asyncio.timeout(seconds):
                    await _send(opened, sending)
        except TimeoutError:
            problem = f"it takes longer than {seconds:.0f} s"
        except OSError as error:
            problem = error.strerror or str(error)
        finally:
            self._readers.discard(reader)
        self.ended["done" if sending.done else "failed"] += 1
        how = f"in {monotonic() - began:.1f} s" if sending.done else f"not whole: {problem or _why(sending)}"
        self._say(f"{reader[0]} on {self._card.name} fetches {name}, {how}")

    def _say(self, text: str) -> None:
        if self._lines.allow(""):
            _log.info("%s", text)


async def _send(opened: socket.socket, sending: Sending) -> None:
    """Send until the reader has all, gives up, or does not answer any more."""
    loop = asyncio.get_running_loop()
    silent = 0
    while silent < TRIES:
        for packet in sending.due():
            await loop.sock_sendall(opened, packet)
        if await _answered(loop, opened, sending):
            silent = 0
        else:
            silent += 1
        if sending.done or sending.ended:
            return


async def _answered(loop: asyncio.AbstractEventLoop, opened: socket.socket, sending: Sending) -> bool:
    """Wait for an answer that makes something due; false where none comes in time."""
    try:
        async with asyncio.timeout(sending.timeout):
            while not sending.take(await loop.sock_recv(opened, tftp.MAX_REQUEST)):
                if sending.done or sending.ended:
                    break
    except TimeoutError:
        return False
    return True


def _why(sending: Sending) -> str:
    return f"the reader gave up: {sending.ended}" if sending.ended else "the reader does not answer"
