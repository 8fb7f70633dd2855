"""The machine under this kernel: its files, system calls and disks."""

import fcntl
import os
import time
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from phase import arch, discovery, measured
from phase.boot import cache, efi, kexec, memory, tpm
from phase.boot.cache import Cache
from phase.boot.errors import BootError
from phase.boot.machine import Address, Kernel, Search
from phase.boot.memory import Memory
from phase.boot.network import Network
from phase.discovery import Provider
from phase.trust import Floor
from phase.trust.floor import MAX_BYTES, Kept

if TYPE_CHECKING:
    # Few boots use it.
    from phase.boot.tor import Tor

#: The longest file of an image that is read is its floor.
_MAX_FILE = MAX_BYTES
#: Flags of files that only one boot or update writes to.
_OURS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class Linux:
    """The machine this process runs on, as its root.

    Args:
        proc: where the kernel shows its state.
        etc: what was built into this image.
        run: files that last until the handoff.
    """

    def __init__(self, *, proc: str = "/proc", etc: str = "/etc/phase", run: str = "/run/phase") -> None:
        self.arch = arch.host()
        self._proc = proc
        self._etc = etc
        self._run = run
        self._initrd: int | None = None
        self._lock: int | None = None
        #: Held while the cache is mounted.
        self._in_use: int | None = None
        self._network = Network(run=run, proc=proc)
        self._tor: Tor | None = None

    def command_line(self) -> str:
        """See `Machine`."""
        return _read(f"{self._proc}/cmdline").decode("utf-8", "replace").strip()

    def config(self, name: str) -> bytes | None:
        """See `Machine`."""
        path = f"{self._etc}/{name}"
        return _read(path) if os.path.exists(path) else None

    def monotonic(self) -> float:
        """See `Machine`."""
        return time.monotonic()

    def clock(self) -> float:
        """See `Machine`."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """See `Machine`."""
        time.sleep(seconds)

    def address(self) -> Address | None:
        """See `Machine`."""
        return self._network.address()

    def network_waits(self) -> str:
        """See `Machine`."""
        return self._network.waits()

    def own_tor(self) -> tuple[str, int] | None:
        """See `Machine`."""
        from phase.boot import tor

        self._tor = tor.Tor(run=self._run)
        return tor.PROXY if self._tor.there() else None

    def tor_progress(self) -> int:
        """See `Machine`."""
        if self._tor is None:
            raise BootError("this image has no Tor")
        return self._tor.progress(self.config("torrc"))

    def turn_name_servers(self) -> None:
        """See `Machine`."""
        self._network.turn_name_servers()

    def own_hosts(self) -> Collection[str]:
        """See `Machine`."""
        # No boot asks.
        from phase.discovery.interfaces import interfaces

        return {str(each.ip).partition("%")[0] for one in interfaces() for each in one.addresses}

    def discover(self, search: Search) -> Iterator[Provider]:
        """See `Machine`."""
        return discovery.discover(
            search.channel,
            search.arch,
            mdns=search.mdns,
            dht=search.dht,
            clock=lambda: search.now,
            timeout=search.timeout,
            gather=search.gather,
            last=search.last,
            besides=search.besides,
        )

    def open_cache(self, publisher: str, *, writable: bool) -> tuple[str, Cache] | None:
        """See `Machine`."""
        device = cache.find()
        if device is None:
            return None
        # In a system that has just started, one who says that it is well may be at it.
        self._in_use = os.open(f"{self._run}/cache.lock", _OURS, 0o600)
        fcntl.flock(self._in_use, fcntl.LOCK_EX)
        return device, cache.mount(device, f"{self._run}/cache", publisher, writable=writable)

    def close_cache(self) -> None:
        """See `Machine`."""
        cache.unmount(f"{self._run}/cache")
        if self._in_use is not None:
            os.close(self._in_use)
            self._in_use = None

    def firmware_floors(self, publisher: str) -> Kept | None:
        """See `Machine`."""
        return efi.load(publisher) if efi.available() else None

    def keep_firmware_floor(self, publisher: str, floor: Floor, had: Kept) -> tuple[str, ...]:
        """See `Machine`."""
        return efi.save(publisher, floor, had)

    def memory(self) -> Memory:
        """See `Machine`."""
        meminfo = _read(f"{self._proc}/meminfo").decode("ascii", "replace")
        return memory.parse(meminfo, _read(f"{self._proc}/iomem").decode("ascii", "replace"))

    def kernel_memory(self, length: int) -> int:
        """See `Machine`."""
        if self.arch != "x86_64":
            return length
        from phase.boot import x86

        if x86.is_plain(_read(x86.CPUS).decode("ascii", "replace")):
            return length
        return memory.x86_kernel(_read(x86.PARAMS), length)

    def open_initrd(self) -> int:
        """See `Machine`."""
        if self._initrd is None:
            self._be_alone()
            self._initrd = os.open(f"{self._run}/initrd", _OURS, 0o600)
            # Nothing that was there before may be part of it.
            os.truncate(self._initrd, 0)
        return self._initrd

    def _be_alone(self) -> None:
        """Keep others out until this process ends: what is verified must not change before it is loaded.

        By a file of its own: the initrd is opened anew for a kernel that is locked down, which ends a lock.
        """
        if self._lock is not None:
            return
        lock = os.open(f"{self._run}/initrd.lock", _OURS, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise BootError("another update of this machine is at work", hint="Wait for it.") from None
        self._lock = lock

    def load(self, kernel: Kernel) -> None:
        """See `Machine`."""
        if self.arch == "x86_64":
            from phase.boot import x86

            table = x86.root_table(_read(x86.SYSTAB).decode()) if os.path.exists(x86.SYSTAB) else 0
            image = x86.image(
                kernel.head,
                kernel.place,
                kernel.initrd,
                kernel.line,
                params=_read(x86.PARAMS),
                rsdp=table,
                plain=x86.is_plain(_read(x86.CPUS).decode("ascii", "replace")),
            )
        else:
            from phase.boot import arm64

            image = arm64.image(
                kernel.head,
                kernel.place,
                kernel.initrd,
                kernel.line,
                tree=_read(arm64.TREE),
                iomem=_read(arm64.MAP).decode(),
                chance=os.urandom(72),
            )
        kexec.load(image, kernel.file, kexec.Files(kernel.place, kernel.line))

    def measure(self, events: Sequence[bytes]) -> bool:
        """See `Machine`."""
        return tpm.measure(measured.PCR, events)

    def start(self) -> None:
        """See `Machine`."""
        kexec.start()

    def set_rescue(self, what: str, seconds: int) -> None:
        """See `Machine`."""
        with open(f"{self._run}/rescue", "w") as handle:
            handle.write(f"{what} {seconds}\n")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as handle:
            return handle.read(_MAX_FILE)
    except OSError as error:
        raise BootError(f"{path} cannot be read: {error.strerror}") from error
