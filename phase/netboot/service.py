"""Runs the proxy and the file server on each segment, and keeps their seeds those of the provider."""

import asyncio
import contextlib
import functools
import logging
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from phase.fetch.http import Url
from phase.netboot import menu
from phase.netboot.cards import Card
from phase.netboot.errors import NetbootError
from phase.netboot.files import Files
from phase.netboot.menu import Menu
from phase.netboot.proxy import Proxy
from phase.provider import systemd
from phase.provider.background import Background, in_thread

#: Seconds between two looks at the interfaces.
CARDS_SECONDS = 3.0
#: Seconds for transfers under way to end.
_END_SECONDS = 5.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """What to run.

    Attributes:
        url: the provider.
        channel: of its seeds.
        arches: to answer machines of.
        cards: the segments, as this machine is connected now.
        ipxe: programs of iPXE by architecture, and for `bios`.
        tftp: whether files are served, and machines told of them.
        every: seconds between two looks at the provider.
        proven: fetches verified seeds; what the provider sends is believed when left out.
    """

    url: Url
    channel: str
    arches: Sequence[str]
    cards: Callable[[], Sequence[Card]]
    ipxe: Mapping[str, bytes]
    tftp: bool
    every: float
    proven: Callable[[str, float], bytes] | None = None


class Netboot:
    """What machines of some segments boot.

    Args:
        options: what to run.

    Attributes:
        options: as given.
        menu: what is told now.
        files: what is served by TFTP now, by name.

    Raises:
        NetbootError: the provider has nothing to boot.
        FetchError: the provider does not answer.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        seeds = menu.fetch(options.url, options.channel, options.arches, proven=options.proven)
        if not seeds:
            raise NetbootError(
                f"{options.url.text} has no seed for {' or '.join(options.arches)} "
                f"in the channel {options.channel}",
                hint="`phase release add REPOSITORY seed ARCH --artifacts SEED` publishes one with its uki.",
            )
        self.menu = Menu(options.url, options.channel, seeds, options.ipxe, tftp=options.tftp)
        self.files = self.menu.files()

    def look(self) -> None:
        """Take the provider's seeds of now. Blocks.

        Raises:
            FetchError: the provider does not answer.
        """
        options = self.options
        had = self.menu.seeds
        seeds = menu.fetch(options.url, options.channel, options.arches, had, proven=options.proven)
        if seeds != had:
            _log.info("the provider's seeds have changed: %s", ", ".join(sorted(seeds)) or "none is left")
        self.menu = self.menu._replace(seeds=seeds)
        self.files = self.menu.files()

    async def run(self, ready: Callable[[], None], stop: asyncio.Event) -> None:
        """Answer until `stop` is set.

        Args:
            ready: called when all ports are open.
            stop: set it to end.

        Raises:
            NetbootError: a port cannot be opened.
        """
        tasks = Background()
        asyncio.get_running_loop().set_exception_handler(tasks.loop_failed)
        segments = Segments(self, tasks)
        try:
            segments.fit(self.options.cards())
            look = functools.partial(in_thread, self.look)
            tasks.repeat("the look at the provider", look, self.options.every)
            tasks.repeat("the look at the interfaces", segments.look, CARDS_SECONDS)
            ready()
            systemd.notify("READY=1")
            await stop.wait()
            systemd.notify("STOPPING=1")
        finally:
            segments.fit(())
            await tasks.stop(_END_SECONDS)


class Segments:
    """The segments that are answered on now.

    Args:
        netboot: what is told there.
        tasks: where transfers run.
    """

    def __init__(self, netboot: Netboot, tasks: Background) -> None:
        self._netboot = netboot
        self._tasks = tasks
        self._open: dict[Card, contextlib.ExitStack] = {}

    async def look(self) -> None:
        """Follow this machine's interfaces: one that has another address is answered from that.

        Raises:
            NetbootError: one is not there any more, or a port of it cannot be opened.
        """
        self.fit(await in_thread(self._netboot.options.cards))

    def fit(self, cards: Sequence[Card]) -> None:
        """Answer on these cards, and on no others.

        Raises:
            NetbootError: a port cannot be opened.
        """
        for card in [each for each in self._open if each not in cards]:
            self._open.pop(card).close()
        for card in cards:
            if card not in self._open:
                self._open[card] = self._opened(card)

    def _opened(self, card: Card) -> contextlib.ExitStack:
        netboot = self._netboot
        with contextlib.ExitStack() as stack:
            proxy = Proxy(card, lambda: netboot.menu)
            stack.callback(_counted, card, "questions answered", proxy.answered)
            stack.callback(proxy.close)
            if netboot.options.tftp:
                files = Files(card, lambda: netboot.files, self._tasks)
                stack.callback(_counted, card, "files", files.ended)
                stack.callback(files.close)
                files.start()
            proxy.start()
            return stack.pop_all()


def _counted(card: Card, what: str, counts: Mapping[str, int]) -> None:
    told = ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))
    _log.info("%s on %s: %s", what, card.name, told or "none")


def run(options: Options, *, ready: Callable[[Menu], None], stopping: Callable[[], None]) -> None:
    """Answer until SIGTERM or SIGINT.

    Args:
        options: what to run.
        ready: called with what is told, when all ports are open.
        stopping: called when it ends.

    Raises:
        PhaseError: it cannot be run.
    """
    # Before what takes longer: it is a matter of what was typed.
    options.cards()
    netboot = Netboot(options)

    async def answer() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await netboot.run(lambda: ready(netboot.menu), stop)
        stopping()

    asyncio.run(answer())
