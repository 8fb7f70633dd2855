"""A machine in memory, for tests of the seed: it notes what it was asked, and its clock does not wait."""

import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from phase.boot import efi
from phase.boot.cache import Cache
from phase.boot.machine import Address, Kernel, Search
from phase.boot.memory import Memory
from phase.discovery import Provider
from phase.discovery.records import host_of
from phase.trust import Floor
from phase.trust.floor import Kept


class StartedError(BaseException):
    """The next kernel would run now. Not an `Exception`: nothing of the seed goes on after it."""


@dataclass
class FakeMachine:
    """A machine whose parts are attributes; a test sets what it needs.

    Attributes:
        arch: canonical architecture.
        line: the kernel's command line.
        etc: files of the image by name.
        lease: what the network gives; None for nothing.
        wall: what its clock says, seconds since the epoch; None for the host's time.
        nearby: finds providers as mDNS would; gets the search.
        disk: directory of the cache's file system, if it has one.
        ram: its memory.
        variables: directory of the firmware's variables; None for firmware that keeps nothing.
        slept: seconds it was told to wait; its clock has gone on by their sum.
        did: what was asked of it, in order: `load`, `unmount`, `measure`, `start`, `turn`.
        own: its own addresses.
        searches: every search for providers.
        loaded: command line and bytes of each kernel that was loaded.
        tor: proxy of a Tor that is part of its image.
        tor_steps: how far that one is, percent, each time it is asked; then it is there.
        tpm: events that its TPM was given; None where it has none.
        rescue: what happens after a failed boot, and after how many seconds.
    """

    arch: str
    line: str = ""
    etc: dict[str, bytes] = field(default_factory=dict)
    lease: Address | None = field(default_factory=lambda: Address("eth0", "10.0.0.2"))
    wall: float | None = None
    nearby: Callable[[Search], Iterator[Provider]] | None = None
    disk: Path | None = None
    ram: Memory = field(default_factory=lambda: Memory(512 << 20, 480 << 20, 400 << 20))
    variables: Path | None = None
    slept: list[float] = field(default_factory=list)
    did: list[str] = field(default_factory=list)
    own: Collection[str] = ()
    searches: list[Search] = field(default_factory=list)
    loaded: list[tuple[str, bytes]] = field(default_factory=list)
    tor: tuple[str, int] | None = None
    tor_steps: list[int] = field(default_factory=list)
    tpm: list[bytes] | None = None
    rescue: tuple[str, int] = ("", 0)
    initrd: int = field(default_factory=lambda: os.memfd_create("initrd"))

    def command_line(self) -> str:
        """See `Machine`."""
        return self.line

    def config(self, name: str) -> bytes | None:
        """See `Machine`."""
        return self.etc.get(name)

    def monotonic(self) -> float:
        """See `Machine`."""
        return time.monotonic() + sum(self.slept)

    def clock(self) -> float:
        """See `Machine`."""
        return time.time() if self.wall is None else self.wall

    def sleep(self, seconds: float) -> None:
        """See `Machine`."""
        self.slept.append(seconds)

    def address(self) -> Address | None:
        """See `Machine`."""
        return self.lease

    def network_waits(self) -> str:
        """See `Machine`."""
        return "" if self.lease else "eth0: no DHCP server answers"

    def own_tor(self) -> tuple[str, int] | None:
        """See `Machine`."""
        return self.tor

    def tor_progress(self) -> int:
        """See `Machine`."""
        self.did.append("tor")
        return self.tor_steps.pop(0) if self.tor_steps else 100

    def turn_name_servers(self) -> None:
        """See `Machine`."""
        self.did.append("turn")

    def own_hosts(self) -> Collection[str]:
        """See `Machine`."""
        return self.own

    def discover(self, search: Search) -> Iterator[Provider]:
        """See `Machine`."""
        self.searches.append(search)
        if self.nearby is not None and search.mdns:
            yield from (each for each in self.nearby(search) if host_of(each.url) not in search.besides)

    def open_cache(self, publisher: str, *, writable: bool) -> tuple[str, Cache] | None:
        """See `Machine`."""
        return None if self.disk is None else ("/dev/disk", Cache(self.disk, publisher, writable=writable))

    def close_cache(self) -> None:
        """See `Machine`."""
        self.did.append("unmount")

    def firmware_floors(self, publisher: str) -> Kept | None:
        """See `Machine`."""
        return None if self.variables is None else efi.load(publisher, str(self.variables))

    def keep_firmware_floor(self, publisher: str, floor: Floor, had: Kept) -> tuple[str, ...]:
        """See `Machine`."""
        return efi.save(publisher, floor, had, str(self.variables))

    def memory(self) -> Memory:
        """See `Machine`."""
        return self.ram

    def kernel_memory(self, length: int) -> int:
        """See `Machine`."""
        return length

    def open_initrd(self) -> int:
        """See `Machine`."""
        return self.initrd

    def load(self, kernel: Kernel) -> None:
        """See `Machine`."""
        self.did.append("load")
        self.loaded.append((kernel.line, os.pread(kernel.file, kernel.place[1], kernel.place[0])))

    def measure(self, events: Sequence[bytes]) -> bool:
        """See `Machine`."""
        self.did.append("measure")
        if self.tpm is not None:
            self.tpm.extend(events)
        return self.tpm is not None

    def start(self) -> None:
        """See `Machine`."""
        self.did.append("start")
        raise StartedError

    def set_rescue(self, what: str, seconds: int) -> None:
        """See `Machine`."""
        self.rescue = (what, seconds)

    def close(self) -> None:
        """Give its memory back."""
        os.close(self.initrd)
