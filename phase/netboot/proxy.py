"""The proxy DHCP server of one segment."""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Address

from phase.netboot import dhcp, sockets
from phase.netboot.cards import Card
from phase.netboot.dhcp import Kind, Question
from phase.netboot.menu import Menu
from phase.netboot.rates import Rates

#: Questions of one machine that are answered at once, and seconds for one more. Firmware asks four times
#: in a minute, and twice when it is answered.
MACHINE = (8, 2.0)
#: The same for a whole segment: a classroom that is switched on asks within seconds.
SEGMENT = (256, 0.02)
#: Lines of the log at once, and seconds for one more.
LINES = (20, 1.0)
#: Datagrams that are read before others have their turn.
_TURN = 32
_log = logging.getLogger(__name__)


class Proxy:
    """Tells machines of one segment what to boot.

    Args:
        card: the segment.
        menu: asked anew for each question.

    Attributes:
        answered: questions that were answered, by way.

    Raises:
        NetbootError: a port cannot be opened.
    """

    def __init__(self, card: Card, menu: Callable[[], Menu]) -> None:
        self.answered: Counter[str] = Counter()
        self._card = card
        self._menu = menu
        self._machines, self._segment = Rates(*MACHINE), Rates(*SEGMENT)
        self._lines = Rates(*LINES)
        self._first = sockets.dhcp(card)
        try:
            self._again = sockets.again(card)
        except BaseException:
            self._first.close()
            raise

    def start(self) -> None:
        """Answer from now on."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._first, self._read, self._first)
        loop.add_reader(self._again, self._read, self._again)

    def close(self) -> None:
        """Answer nobody any more."""
        loop = asyncio.get_running_loop()
        for each in (self._first, self._again):
            loop.remove_reader(each)
            each.close()

    def _read(self, opened: socket.socket) -> None:
        for _ in range(_TURN):
            try:
                data, came = opened.recvfrom(dhcp.MAX_MESSAGE + 1)
            except OSError:
                # Nothing is left, or the card is gone.
                return
            if opened is self._first:
                self.first(data)
            else:
                self.again(data, came)

    def first(self, data: bytes) -> None:
        """Take what somebody said to all DHCP servers; who looks for one is answered by broadcast."""
        question = dhcp.parse(data)
        if question is not None and question.kind is Kind.DISCOVER:
            # It has no address to be found by yet.
            self._answer(self._first, question, ("255.255.255.255", sockets.CLIENT))

    def again(self, data: bytes, came: tuple[str, int]) -> None:
        """Take what a machine says to this proxy alone, when it has an address of the segment."""
        question = dhcp.parse(data)
        if question is not None and self._card.has(IPv4Address(came[0])):
            self._answer(self._again, question, came)

    def _answer(self, opened: socket.socket, question: Question, to: tuple[str, int]) -> None:
        server = self._card.address.ip
        name = self._menu().told(question, server)
        # The machine's own count first: one that asks without end takes nothing from the others.
        if name is None or not (self._machines.allow(question.mac) and self._segment.allow("")):
            return
        try:
            sockets.send(opened, dhcp.answer(question, name, server), to, server)
        except OSError as error:
            self._say(f"no answer gets to {self._card.name}: {error.strerror or error}")
            return
        self.answered[question.way.value] += 1
        self._say(f"{question.mac.hex(':')} on {self._card.name} asks by {question.way.value}: {name}")

    def _say(self, text: str) -> None:
        if self._lines.allow(""):
            _log.info("%s", text)
