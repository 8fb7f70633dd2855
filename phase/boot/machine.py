"""The machine a seed runs on, as its stages see it: `phase.boot.linux` is the real one.

`phase.boot.fake` is one in memory, for tests. A stage asks its machine for everything that only a booting
machine has; what a provider gives is fetched over real sockets in both.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple, Protocol

from phase.boot.cache import Cache
from phase.boot.memory import Memory
from phase.discovery import Provider
from phase.trust import Floor
from phase.trust.floor import Kept


class Address(NamedTuple):
    """How this machine is connected: one of its cards, and its address there."""

    interface: str
    address: str


class Search(NamedTuple):
    """One search for providers; `phase.discovery.discover` explains each field."""

    channel: str
    arch: str
    mdns: bool
    dht: tuple[tuple[str, int], ...]
    timeout: float
    gather: float
    last: Collection[str]
    #: Seconds since the epoch that are known to have passed.
    now: float
    besides: Collection[str] = ()


class Kernel(NamedTuple):
    """A verified kernel and its initrd, both in one file.

    Attributes:
        file: its descriptor.
        head: the first bytes of the kernel.
        place: offset and length of the kernel in the file, bytes.
        initrd: length of the initrd, which starts where the file does, bytes.
        line: the kernel's command line.
    """

    file: int
    head: bytes
    place: tuple[int, int]
    initrd: int
    line: str


class Machine(Protocol):
    """What a boot asks of the machine it runs on."""

    @property
    def arch(self) -> str:
        """Its canonical architecture."""

    def command_line(self) -> str:
        """The running kernel's command line.

        Raises:
            BootError: it cannot be read.
        """

    def config(self, name: str) -> bytes | None:
        """A file that was built into this image (`/etc/phase/NAME`); None where there is none.

        Raises:
            BootError: there is one, and it cannot be read.
        """

    def monotonic(self) -> float:
        """Seconds that only grow."""

    def clock(self) -> float:
        """The machine's clock: seconds since the epoch, right or not."""

    def sleep(self, seconds: float) -> None:
        """Wait."""

    def address(self) -> Address | None:
        """An address of this machine; None as long as no card has one.

        Raises:
            NetworkError: there is no network card, after some seconds in which one could have come.
        """

    def network_waits(self) -> str:
        """What its network cards wait for, in words; empty as long as none is known."""

    def own_tor(self) -> tuple[str, int] | None:
        """The proxy of the Tor that this image has, address and port; None where it has none."""

    def tor_progress(self) -> int:
        """How far this image's Tor is on its way into the network, percent; the first question starts it.

        Raises:
            BootError: it has ended, or cannot be started.
        """

    def turn_name_servers(self) -> None:
        """Where several cards know name servers, let those of another card be asked first."""

    def own_hosts(self) -> Collection[str]:
        """Its own addresses, without zones: a provider there is this machine itself."""

    def discover(self, search: Search) -> Iterator[Provider]:
        """Look for providers; each is yielded as soon as it is known.

        Raises:
            DiscoveryError: there is no network to ask.
        """

    def open_cache(self, publisher: str, *, writable: bool) -> tuple[str, Cache] | None:
        """Find and mount the disk that keeps releases: its device and the cache; None where there is none.

        Args:
            publisher: whose part of it is used.
            writable: whether anything may be written to it.

        Raises:
            CacheError: there is one, and it cannot be used.
        """

    def close_cache(self) -> None:
        """Write the cache out and unmount it."""

    def firmware_floors(self, publisher: str) -> Kept | None:
        """The floors that the firmware keeps; None where the firmware keeps nothing.

        Args:
            publisher: whose is its own.

        Raises:
            TrustError: there is one, and it cannot be read.
        """

    def keep_firmware_floor(self, publisher: str, floor: Floor, had: Kept) -> tuple[str, ...]:
        """Give the firmware a floor to keep.

        Args:
            publisher: whose.
            floor: the new one.
            had: what `firmware_floors` returned.

        Returns:
            Names of what other publishers had there and was removed, since there were too many.

        Raises:
            CacheError: the firmware does not take it.
        """

    def memory(self) -> Memory:
        """What memory it has.

        Raises:
            BootError: the kernel does not say.
        """

    def kernel_memory(self, length: int) -> int:
        """What a kernel takes where it is started, beyond its initrd, bytes.

        Args:
            length: of its file, bytes.
        """

    def open_initrd(self) -> int:
        """The file that the second kernel's initrd is put together in; empty at first, kept open."""

    def load(self, kernel: Kernel) -> None:
        """Give the running kernel the next one.

        Raises:
            HandoffError: it refuses.
        """

    def measure(self, events: Sequence[bytes]) -> bool:
        """Have its TPM add events to the PCR of Phase (`phase.measured`); whether it has a TPM.

        Raises:
            HandoffError: it has one, which refuses.
        """

    def start(self) -> None:
        """Start the loaded kernel; comes back only by raising.

        Raises:
            HandoffError: the running kernel refuses.
        """

    def set_rescue(self, what: str, seconds: int) -> None:
        """Say what the keeper of this process does when the boot has failed.

        Args:
            what: `shell`, `reboot` or `poweroff`.
            seconds: how long it waits before, so that somebody can read what went wrong.
        """
