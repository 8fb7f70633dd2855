"""The seed's stages, in order: discover, trust, fetch, verify, load, handoff.

Each stage prints one mark when it ends. A failed one says what, why and what to try, and then the
policy follows: the next provider, the release that an earlier boot has kept, again after a pause, and
when the time is up what `phase.rescue` says. Nothing unverified is ever loaded.
"""

import os
import time
from collections.abc import Callable, Collection
from datetime import datetime

from phase import arch, cmdline, discovery, fetch, marks, trust
from phase.boot import cache, efi, image_check, initrd, kexec
from phase.boot.errors import BootError, CacheError, HandoffError, NetworkError
from phase.errors import PhaseError
from phase.fetch import FetchReport
from phase.fetch.release import refresh_from
from phase.release.manifest import Artifact, Manifest
from phase.trust import clock
from phase.trust import floor as floors

_RUN = "/run/phase"
_ETC = "/etc/phase"
_INITRD = f"{_RUN}/initrd"
_CACHE = f"{_RUN}/cache"
#: Seconds to wait for an address before a kept release is booted instead.
_PATIENCE = 30.0
#: Seconds to look for more providers once one was found: by the search. The first is for the usual case,
#: where the first is a good one; later there was a reason to look again.
_GATHER = (0.1, 1.0, 5.0)
#: Providers that proved nothing which are remembered.
_MOST_USELESS = 256


class _Boot:
    """One boot: what it was asked, and which stage it is in."""

    def __init__(self) -> None:
        self.stage = "init"
        self.running = _read("/proc/cmdline").decode("ascii", "replace").strip()
        self.parameters = cmdline.parse(self.running)
        self.arch = arch.host()
        self.root = _read(f"{_ETC}/root.json", hint="This seed was built without a trust root.")
        self.deadline = time.monotonic() + self.parameters.timeout
        self.connected = False
        #: How often providers were looked for, and which of them proved nothing.
        self.searches = 0
        self.useless: set[str] = set()
        #: Providers that have sent wrong bytes: not asked for any more of them.
        self.liars: set[str] = set()
        #: The layout of the initrd's file, and hashes of what an attempt has begun to put into it.
        self.slots: tuple[initrd.Slot, ...] = ()
        self.begun: set[str] = set()
        self.cache: cache.Cache | None = None
        #: What was known when this image was built; nothing where it does not say.
        self.baked = _baked_floor()
        #: What the firmware keeps; nothing where it keeps nothing, or is not to be asked.
        self.kept_floor: trust.Floor | None = None
        #: What this boot itself has seen, in an attempt that came no further.
        self.seen: trust.Floor | None = None
        #: Whether this image lets a kept release boot when no provider gives one.
        self.offline = os.path.exists(f"{_ETC}/allow-offline")
        #: What this image takes after its expiry, in the mode that whoever is at this machine chose.
        self.policy = trust.Policy(grace=_grace(self.parameters.mode))

    def run(self) -> None:
        """Try until the handoff, or until the time is up."""
        marks.emit("init", arch=self.arch, channel=self.parameters.channel, mode=self.parameters.mode)
        for word in self.parameters.problems:
            marks.say(f"ignored on the kernel command line: {word}")
        self.open_cache()
        attempt = 0
        while True:
            attempt += 1
            try:
                self.network()
                self.attempt()
            except HandoffError:
                raise
            except PhaseError as error:
                failed_at = self.stage
                pause = min(2.0**attempt, 30.0)
                over = time.monotonic() + pause >= self.deadline
                # Not for a provider that lies: of those that do not, the first search may have missed some.
                alone = over or not self.connected or self.searches >= len(_GATHER)
                if alone and self.cache is not None and self.offline and self.cache.metadata():
                    marks.emit(failed_at, "retry", reason=str(error), next="cache")
                    self.boot_kept(self.cache)
                    self.stage = failed_at
                refused = isinstance(error, trust.TrustError | fetch.VerificationError)
                marks.emit(
                    self.stage, "refused" if refused else "failed", reason=str(error), attempt=attempt
                )
                if over:
                    raise
                marks.say(f"{self.stage}: {error}; trying again in {pause:.0f} s")
                time.sleep(pause)

    def open_cache(self) -> None:
        """Look for what earlier boots have kept, if this one may know of it."""
        if self.parameters.mode == "private":
            return
        if efi.available():
            self.kept_floor = efi.load()
        if not self.parameters.cache:
            return
        device = cache.find()
        if device is None:
            return
        try:
            self.cache = cache.mount(device, _CACHE, writable=not self.parameters.nowrite)
        except CacheError as error:
            marks.say(str(error))
            return
        marks.say(f"cache: {device}{'' if self.cache.writable else ', only read'}")

    def network(self) -> None:
        """Wait for the address the init asked for."""
        if self.connected:
            return
        self.stage = "network"
        until = self.deadline
        if self.cache is not None and self.offline:
            until = min(until, time.monotonic() + _PATIENCE)
        while not os.path.exists(f"{_RUN}/net"):
            if time.monotonic() > until:
                raise NetworkError(
                    "no address by DHCP on any interface", hint="Check cable and DHCP server."
                )
            time.sleep(0.02)
        interface, address = _read(f"{_RUN}/net").decode().split()
        marks.emit("network", interface=interface, address=address)
        self.connected = True

    def attempt(self) -> None:
        """One way from discovery to the second kernel."""
        urls = self.discover()
        manifest, metadata = self.refresh(urls)
        self.hand_over(self.fetch(urls, manifest, metadata))

    def boot_kept(self, kept: cache.Cache) -> None:
        """Boot the release that is here whole. Returns only when it cannot: then nothing has happened."""
        try:
            marks.emit("discover", source="cache", count=0)
            self.stage = "trust"
            # Its own versions, not those of a newer release that was seen and never came here whole. Of
            # that one only the root counts: what revokes a key does so however little else arrives.
            known = [
                trust.Floor(root=known.root, roots=known.roots, time=known.time) for known in self.floors()
            ]
            result = trust.refresh(
                self.root,
                kept.get,
                channel=self.parameters.channel,
                arch=self.arch,
                now=self.now(),
                others=[*known, self.baked] if self.baked else known,
                policy=self.policy,
            )
            manifest = result.manifest
            _believed(result, "cache")
            self.hand_over(self.fetch([], manifest, dict(result.metadata)))
        except HandoffError:
            raise
        except PhaseError as error:
            marks.say(f"{self.stage}: not from the cache: {error}")

    def hand_over(self, line: str) -> None:
        """Start the loaded kernel."""
        self.stage = "handoff"
        if self.cache is not None:
            cache.unmount(_CACHE)
        marks.emit("handoff", cmdline=line)
        kexec.start()

    def discover(self) -> list[str]:
        """Find providers: hints, in the order they are to be tried."""
        self.stage = "discover"
        found: list[discovery.Provider] = []
        remaining = max(self.deadline - time.monotonic(), 1.0)
        look = not self.parameters.providers
        for provider in discovery.discover(
            self.parameters.channel,
            self.arch,
            urls=self.parameters.providers,
            mdns=look and self.parameters.mdns,
            # What it finds may be anywhere, and who is asked learns of this machine.
            dht=(self.parameters.dht or ()) if look and self.parameters.mode == "internet" else (),
            clock=lambda: self.now().timestamp(),
            timeout=min(remaining, 10.0),
            gather=_GATHER[min(self.searches, len(_GATHER) - 1)],
            last=self.useless | self.liars,
        ):
            found.append(provider)
        self.searches += 1
        if not found:
            # One that ends without anybody has had all the time there is for it.
            self.searches = len(_GATHER)
            raise discovery.DiscoveryError(
                f"no provider of {self.parameters.channel}/{self.arch} was found",
                hint="Start `phase serve` on this network, or boot with phase.provider= or phase.dht=.",
            )
        marks.emit("discover", provider=found[0].url, source=found[0].source, count=len(found))
        return [provider.url for provider in found]

    def refresh(self, urls: list[str]) -> tuple[Manifest, dict[str, bytes]]:
        """Believe, or not, what the providers say the release is; one that lies does not stop the rest."""
        self.stage = "trust"
        url, result = refresh_from(
            urls,
            self.root,
            channel=self.parameters.channel,
            arch=self.arch,
            now=self.now(),
            deadline=self.deadline,
            others=self.floors(),
            policy=self.policy,
            cached=self.cache.metadata() if self.cache else None,
            refused=self.refuse,
        )
        if self.cache:
            # Before the floor that asks for them: a kept release is believed by the same root.
            _if_it_can(self.cache.keep_roots, result.metadata)
        self.raise_floor(result.floor)
        _believed(result, url)
        return result.manifest, dict(result.metadata)

    def refuse(self, url: str, error: PhaseError) -> None:
        """Say why a provider is not believed; later searches put it behind all others."""
        marks.say(f"trust: not from {url}: {error}")
        if len(self.useless) < _MOST_USELESS:
            self.useless.add(url)

    def floors(self) -> list[trust.Floor]:
        """What each place here remembers. A disk's is not to be preferred: it may come from elsewhere."""
        known = [self.cache.floor()] if self.cache else []
        return known + [floor for floor in (self.baked, self.kept_floor, self.seen) if floor is not None]

    def raise_floor(self, floor: trust.Floor) -> None:
        """Remember what has been seen, wherever that can be."""
        self.seen = floor
        if self.cache:
            _if_it_can(self.cache.raise_floor, floors.replacing(floor, self.cache.floor()))
        if self.kept_floor is not None and not self.parameters.nowrite:
            _if_it_can(efi.save, floor, self.kept_floor)

    def now(self) -> datetime:
        """The time, on a machine that may have no clock."""
        seen = max((floor.time for floor in self.floors()), default=0)
        return clock.trusted_now(build_time=int(_read(f"{_ETC}/build-time")), last_seen=seen)

    def fetch(self, urls: list[str], manifest: Manifest, metadata: dict[str, bytes]) -> str:
        """Get every artifact straight to its place in the second kernel's initrd, and load that.

        Returns:
            The second kernel's command line.
        """
        self.stage = "fetch"
        if "rootfs" not in manifest.artifacts:
            raise BootError(
                f"release {manifest.release} of {manifest.channel}/{manifest.arch} has no rootfs"
            )
        plan = initrd.plan(manifest, metadata)
        places = {slot.sha256: slot.offset for slot in plan.slots}
        out = os.open(_INITRD, os.O_RDWR | os.O_CREAT, 0o600)
        if plan.slots != self.slots:
            self.slots, self.begun = plan.slots, set()
        reports: list[FetchReport] = []
        length = sum(artifact.length for artifact in manifest.artifacts.values())
        progress = fetch.Progress(length, lambda line: marks.say(f"fetch: {line}"))
        try:
            os.truncate(out, plan.size)
            for offset, data in plan.pieces:
                os.pwrite(out, data, offset)
            for name in sorted(manifest.artifacts):
                artifact = manifest.artifacts[name]
                place = places[artifact.sha256]
                reports.append(self.take(artifact, urls, out, place, places, progress.artifact()))
            if self.cache and urls:
                _if_it_can(self.cache.remember, metadata, places)
            marks.emit("fetch", "ok", t=None, **_told(reports))
            self.stage = "verify"
            kernel = manifest.artifacts["kernel"]
            head = os.pread(out, image_check.HEADER_BYTES, places[kernel.sha256])
            image_check.check_kernel(head, self.arch)
            second = manifest.artifacts["initramfs"]
            _copy(out, places[second.sha256], second.length, plan.tail)
            rootfs = manifest.artifacts["rootfs"]
            marks.emit("verify", rootfs=rootfs.sha256, kernel=kernel.sha256)
            self.stage = "load"
            line = cmdline.compose(manifest.cmdline, self.running, rootfs=rootfs.sha256)
            self.load(out, head, (places[kernel.sha256], kernel.length), plan.size, line)
        finally:
            os.close(out)
        marks.emit("load")
        return line

    def take(
        self,
        artifact: Artifact,
        urls: list[str],
        out: int,
        offset: int,
        keep: Collection[str],
        progress: Callable[[int, int], None],
    ) -> FetchReport:
        """Get one artifact to its place: what an attempt before has, or the cache, the rest from providers.

        Args:
            artifact: which.
            urls: of the providers.
            out: the file it goes to.
            offset: where in it, bytes.
            keep: hashes of what the cache must not lose to make room for it.
            progress: is told of it, as `fetch_artifact` tells.
        """
        # Nothing is resumed that was never begun: to verify an empty file takes as long as a full one.
        begun = artifact.sha256 in self.begun
        kept = self.cache.open(artifact.sha256, artifact.length, keep) if self.cache else None
        if self.cache is None or kept is None:
            self.begun.add(artifact.sha256)
            return fetch.fetch_artifact(
                artifact,
                urls,
                out,
                offset=offset,
                deadline=self.deadline,
                progress=progress,
                resume=begun,
                liars=self.liars,
            )
        there = 0
        try:
            # Once: what has been fetched since may be more than the disk could take.
            for start, data in () if begun else cache.blocks(kept, artifact.length):
                there += os.pwrite(out, data, offset + start)
            self.begun.add(artifact.sha256)
            # The resume verifies what was copied, there where it will be booted from.
            report = fetch.fetch_artifact(
                artifact,
                urls,
                out,
                offset=offset,
                deadline=self.deadline,
                progress=progress,
                resume=begun or there > 0,
                keep_fd=kept if self.cache.writable else None,
                liars=self.liars,
            )
        finally:
            os.close(kept)
        if report.unkept:
            marks.say(f"cache: {artifact.name} is not kept: {report.unkept}")
        return report

    def load(self, file: int, head: bytes, kernel: tuple[int, int], initrd: int, line: str) -> None:
        """Put the verified kernel and initrd where the next boot finds them."""
        if self.arch == "x86_64":
            from phase.boot import x86

            table = x86.root_table(_read(x86.SYSTAB).decode()) if os.path.exists(x86.SYSTAB) else 0
            image = x86.image(head, kernel, initrd, line, params=_read(x86.PARAMS), rsdp=table)
        else:
            from phase.boot import arm64

            image = arm64.image(
                head,
                kernel,
                initrd,
                line,
                tree=_read(arm64.TREE),
                iomem=_read(arm64.MAP).decode(),
                chance=os.urandom(72),
            )
        kexec.load(image, file)


def main() -> int:
    """Boot. Returns only when it could not: 1, with what failed on the console."""
    boot: _Boot | None = None
    try:
        boot = _Boot()
        _write(f"{_RUN}/rescue", boot.parameters.rescue)
        boot.run()
    except PhaseError as error:
        stage = boot.stage if boot else "init"
        marks.emit(stage, "failed", reason=str(error), final=True)
        marks.say(f"giving up at {stage}: {error}")
    except Exception as error:
        # Ours, not a provider's or the network's; who watches must not wait for the next mark.
        stage = boot.stage if boot else "init"
        marks.emit(stage, "failed", reason=f"internal error: {error!r}", final=True)
        raise
    return 1


def _told(reports: list[FetchReport]) -> dict[str, marks.Fact]:
    """How all artifacts came here, as facts of one mark: bytes by provider, and who was given up."""
    sources: dict[str, int] = {}
    dropped: dict[str, str] = {}
    for report in reports:
        dropped |= report.dropped
        for url, size in report.sources.items():
            sources[url] = sources.get(url, 0) + size
    facts: dict[str, marks.Fact] = {
        "bytes": sum(report.length for report in reports),
        "kept": sum(report.kept for report in reports),
        "sources": " ".join(f"{url}={size}" for url, size in sources.items()),
    }
    if dropped:
        facts["dropped"] = "; ".join(dropped.values())
    return facts


def _believed(result: trust.Refreshed, provider: str) -> None:
    """Say what is believed, and what of it only by this image's grace."""
    manifest = result.manifest
    facts: dict[str, marks.Fact] = {"overdue": ", ".join(result.overdue)} if result.overdue else {}
    marks.emit(
        "trust", "ok", t=None, version=manifest.version, release=manifest.release, provider=provider, **facts
    )


def _grace(mode: str) -> int:
    """Seconds for which this image takes expired timestamps and snapshots in a mode."""
    path = f"{_ETC}/grace-{mode}"
    return int(_read(path)) if os.path.exists(path) else 0


def _baked_floor() -> trust.Floor | None:
    """The floor that is part of this image: all there is where neither disk nor firmware keeps one."""
    path = f"{_ETC}/floor.json"
    return floors.parse(_read(path), path) if os.path.exists(path) else None


def _if_it_can(keep: Callable[..., None], *what: object) -> None:
    """Keep something in the cache; a cache that is full or broken does not stop a boot."""
    try:
        keep(*what)
    except CacheError as error:
        marks.say(str(error))


def _read(path: str, *, hint: str = "") -> bytes:
    try:
        with open(path, "rb") as handle:
            return handle.read(1 << 20)
    except OSError as error:
        raise BootError(f"{path} cannot be read: {error.strerror}", hint=hint) from error


def _write(path: str, text: str) -> None:
    with open(path, "w") as handle:
        handle.write(text)


def _copy(file: int, start: int, length: int, offset: int) -> None:
    """Copy within a file, a megabyte at a time: the whole would stand in memory once more."""
    done = 0
    while done < length:
        block = os.pread(file, min(1 << 20, length - done), start + done)
        if not block:
            raise BootError("the initrd file is shorter than it was written")
        os.pwrite(file, block, offset + done)
        done += len(block)
