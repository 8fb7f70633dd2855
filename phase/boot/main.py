"""The seed's stages, in order: discover, trust, fetch, verify, load, handoff.

Each stage prints one mark when it ends. A failed one says what, why and what to try, and then the
policy follows: the next provider, again after a pause, and when the time is up what `phase.rescue`
says. Nothing unverified is ever loaded.
"""

import os
import time

from phase import arch, cmdline, discovery, fetch, marks, trust
from phase.boot import image_check, initrd, kexec
from phase.boot.errors import BootError, HandoffError, NetworkError
from phase.errors import PhaseError
from phase.release.manifest import Manifest
from phase.trust import clock

_RUN = "/run/phase"
_ETC = "/etc/phase"
_INITRD = f"{_RUN}/initrd"
#: How long to look for more providers once one was found, seconds.
_GATHER = 0.1


class _Boot:
    """One boot: what it was asked, and which stage it is in."""

    def __init__(self) -> None:
        self.stage = "init"
        self.running = _read("/proc/cmdline").decode("ascii", "replace").strip()
        self.parameters = cmdline.parse(self.running)
        self.arch = arch.host()
        self.root = _read(f"{_ETC}/root.json", hint="This seed was built without a trust root.")
        self.deadline = time.monotonic() + self.parameters.timeout

    def run(self) -> None:
        """Try until the handoff, or until the time is up."""
        marks.emit("init", arch=self.arch, channel=self.parameters.channel, mode=self.parameters.mode)
        for word in self.parameters.problems:
            marks.say(f"ignored on the kernel command line: {word}")
        self.network()
        attempt = 0
        while True:
            attempt += 1
            try:
                self.attempt()
            except HandoffError:
                raise
            except PhaseError as error:
                refused = isinstance(error, trust.TrustError | fetch.VerificationError)
                marks.emit(
                    self.stage, "refused" if refused else "failed", reason=str(error), attempt=attempt
                )
                pause = min(2.0**attempt, 30.0)
                if time.monotonic() + pause >= self.deadline:
                    raise
                marks.say(f"{self.stage}: {error}; trying again in {pause:.0f} s")
                time.sleep(pause)

    def network(self) -> None:
        """Wait for the address the init asked for."""
        self.stage = "network"
        while not os.path.exists(f"{_RUN}/net"):
            if time.monotonic() > self.deadline:
                raise NetworkError(
                    "no address by DHCP on any interface", hint="Check cable and DHCP server."
                )
            time.sleep(0.02)
        interface, address = _read(f"{_RUN}/net").decode().split()
        marks.emit("network", interface=interface, address=address)

    def attempt(self) -> None:
        """One way from discovery to the second kernel."""
        urls = self.discover()
        manifest, metadata = self.refresh(urls)
        line = self.fetch(urls, manifest, metadata)
        self.stage = "handoff"
        marks.emit("handoff", cmdline=line)
        kexec.start()

    def discover(self) -> list[str]:
        """Find providers: hints, in the order they are to be tried."""
        self.stage = "discover"
        found: list[discovery.Provider] = []
        remaining = max(self.deadline - time.monotonic(), 1.0)
        for provider in discovery.discover(
            self.parameters.channel,
            self.arch,
            urls=self.parameters.providers,
            mdns=self.parameters.mdns and not self.parameters.providers,
            timeout=min(remaining, 10.0),
            gather=_GATHER,
        ):
            found.append(provider)
        if not found:
            raise discovery.DiscoveryError(
                f"no provider of {self.parameters.channel}/{self.arch} was found",
                hint="Start `phase serve` on this network, or boot with phase.provider=URL.",
            )
        marks.emit("discover", provider=found[0].url, source=found[0].source, count=len(found))
        return [provider.url for provider in found]

    def refresh(self, urls: list[str]) -> tuple[Manifest, dict[str, bytes]]:
        """Believe, or not, what the providers say the release is; one that lies does not stop the rest."""
        self.stage = "trust"
        now = clock.trusted_now(build_time=int(_read(f"{_ETC}/build-time")))
        failures: list[PhaseError] = []
        for url in urls:
            try:
                with fetch.Client([url], timeout=max(self.deadline - time.monotonic(), 1.0)) as client:
                    result = trust.refresh(
                        self.root,
                        client.get_metadata,
                        channel=self.parameters.channel,
                        arch=self.arch,
                        now=now,
                    )
            except PhaseError as error:
                marks.say(f"trust: not from {url}: {error}")
                failures.append(error)
                continue
            manifest = result.manifest
            marks.emit("trust", version=manifest.version, release=manifest.release, provider=url)
            return manifest, dict(result.metadata)
        # Somebody lying says more than somebody not answering.
        raise next((error for error in failures if isinstance(error, trust.TrustError)), failures[0])

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
        total = 0
        try:
            os.truncate(out, plan.size)
            for offset, data in plan.pieces:
                os.pwrite(out, data, offset)
            for name in sorted(manifest.artifacts):
                artifact = manifest.artifacts[name]
                fetch.fetch_artifact(
                    artifact, urls, out, offset=places[artifact.sha256], deadline=self.deadline
                )
                total += artifact.length
            marks.emit("fetch", bytes=total)
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
    return 1


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
