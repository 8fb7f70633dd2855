"""Packets of TFTP, and one file on its way to one reader. Pure: bytes in, bytes out.

Source: RFC 1350 (the protocol), RFC 2347 (options), RFC 2348 (blksize), RFC 2349 (timeout, tsize), RFC 7440
(windowsize).
"""

import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

from phase.errors import printable
from phase.netboot.errors import NetbootError

#: The longest request, bytes (RFC 2347).
MAX_REQUEST = 512
#: Options of one request that are looked at.
MAX_OPTIONS = 8
#: Bytes of a block: without the option, and those that are agreed to. The last fills a frame of Ethernet;
#: smaller ones than the usual would only take longer.
BLOCK, MAX_BLOCK = 512, 1468
#: Blocks that are sent before the reader must answer.
MAX_WINDOW = 32
#: Seconds until a window is sent again: without the option, and the most that is agreed to.
TIMEOUT, MAX_TIMEOUT = 1.0, 10
_TEXT = 60


class Code(IntEnum):
    """What a packet is."""

    READ = 1
    WRITE = 2
    DATA = 3
    ACK = 4
    ERROR = 5
    OPTIONS = 6


class Problem(IntEnum):
    """Why a request is refused."""

    OTHER = 0
    NO_FILE = 1
    DENIED = 2
    BAD = 4


class RequestError(NetbootError):
    """A request that is refused.

    Args:
        problem: why.
        text: the same for people.
    """

    def __init__(self, problem: Problem, text: str) -> None:
        self.problem = problem
        self.text = text
        super().__init__(text)


class Request(NamedTuple):
    """A request to read.

    Attributes:
        name: of the file, as it was asked for.
        options: by name in small letters.
    """

    name: str
    options: Mapping[str, str]


class Agreed(NamedTuple):
    """How a file is sent.

    Attributes:
        block: bytes of a block.
        window: blocks that are sent before an answer.
        timeout: seconds until they are sent again.
        told: the options that are agreed to; empty where none was asked for.
    """

    block: int = BLOCK
    window: int = 1
    timeout: float = TIMEOUT
    told: Mapping[str, int] = {}


def parse(data: bytes) -> Request | None:
    """A request to read; None for what is no request at all.

    Args:
        data: a datagram from anybody.

    Raises:
        RequestError: a request that is refused.
    """
    code = _code(data)
    if code not in (Code.READ, Code.WRITE):
        return None
    if code == Code.WRITE:
        raise RequestError(Problem.DENIED, "nothing is written here")
    if len(data) > MAX_REQUEST or not data.endswith(b"\0"):
        raise RequestError(Problem.BAD, "the request is cut short, or too long")
    words = [word.decode("latin-1") for word in data[2:-1].split(b"\0")]
    if len(words) < 2 or len(words) % 2 or not words[0]:
        raise RequestError(Problem.BAD, "the request has no name, or an option without a value")
    if words[1].lower() != "octet":
        raise RequestError(Problem.BAD, "only octet (binary) mode is served")
    pairs = [*zip(words[2::2], words[3::2], strict=True)][:MAX_OPTIONS]
    return Request(words[0], {name.lower(): value for name, value in pairs})


def agree(request: Request, length: int) -> Agreed:
    """How a file is sent. An option with a value that makes no sense is as if it had not been sent.

    Args:
        request: of the reader.
        length: of the file, bytes.
    """
    told: dict[str, int] = {}
    asked = {
        name: number for name, value in request.options.items() if (number := _number(value)) is not None
    }
    if (block := asked.get("blksize", 0)) >= BLOCK:
        told["blksize"] = min(block, MAX_BLOCK)
    if (window := asked.get("windowsize", 0)) >= 1:
        told["windowsize"] = min(window, MAX_WINDOW)
    if 1 <= (timeout := asked.get("timeout", 0)) <= MAX_TIMEOUT:
        told["timeout"] = timeout
    if "tsize" in asked:
        told["tsize"] = length
    return Agreed(
        told.get("blksize", BLOCK), told.get("windowsize", 1), float(told.get("timeout", TIMEOUT)), told
    )


def error(problem: Problem, text: str) -> bytes:
    """A packet that ends a transfer."""
    return struct.pack("!HH", Code.ERROR, problem) + text.encode("ascii", "replace")[:_TEXT] + b"\0"


class Sending:
    """One file on its way to one reader.

    Args:
        content: of the file.
        agreed: how it is sent.

    Attributes:
        timeout: seconds until what is due is sent again.
        done: whether the reader has all of it.
        ended: what the reader said when it gave up; empty while it has not.
    """

    def __init__(self, content: bytes, agreed: Agreed) -> None:
        self.done = False
        self.ended = ""
        self.timeout = agreed.timeout
        self._content = content
        self._agreed = agreed
        # The last block is shorter than the others, and empty where nothing is left for it.
        self._last = len(content) // agreed.block + 1
        self._base = -1 if agreed.told else 0
        self._again = False

    def due(self) -> list[bytes]:
        """What is to be sent now: the options, or the blocks behind the last one that has arrived."""
        if self._base < 0:
            return [self._options()]
        return [self._block(number) for number in range(self._base + 1, self._sent() + 1)]

    def take(self, packet: bytes) -> bool:
        """Take a packet of the reader.

        Returns:
            Whether something is due now.
        """
        code = _code(packet)
        if code == Code.ERROR:
            self.ended = printable(packet[4:].split(b"\0")[0][:_TEXT].decode("latin-1")) or "no reason"
            return False
        if code != Code.ACK or len(packet) < 4:
            return False
        number = int.from_bytes(packet[2:4], "big")
        # Numbers begin again behind 65535, as every reader of long files expects.
        ahead = (number - max(self._base, 0)) & 0xFFFF
        if self._base < 0:
            self._base = 0 if number == 0 else -1
            return number == 0
        if ahead == 0:
            return self._missed()
        if ahead > self._sent() - self._base:
            return False
        self._base += ahead
        self._again = False
        self.done = self._base == self._last
        return not self.done

    def _missed(self) -> bool:
        """Whether a window is sent again because its first block did not arrive.

        Once for each: with one block to a window, an answer that came twice would otherwise make every block
        come twice from then on.
        """
        if self._agreed.window == 1 or self._again:
            return False
        self._again = True
        return True

    def _sent(self) -> int:
        return min(max(self._base, 0) + self._agreed.window, self._last)

    def _block(self, number: int) -> bytes:
        start = (number - 1) * self._agreed.block
        return (
            struct.pack("!HH", Code.DATA, number & 0xFFFF)
            + self._content[start : start + self._agreed.block]
        )

    def _options(self) -> bytes:
        told = b"".join(f"{name}\0{value}\0".encode() for name, value in self._agreed.told.items())
        return struct.pack("!H", Code.OPTIONS) + told


def _code(data: bytes) -> int:
    return int.from_bytes(data[:2], "big") if len(data) >= 2 else 0


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 10 else None
