"""A whole release, fetched straight to its place in the second kernel's initrd."""

import os
import time
from collections.abc import Callable, Collection, Sequence

from phase import cmdline, fetch, files, marks
from phase.boot import cache, image_check, initrd, memory
from phase.boot.cache import Cache
from phase.boot.errors import BootError
from phase.boot.machine import Kernel, Machine
from phase.boot.remembered import if_it_can
from phase.fetch import FetchReport
from phase.fetch.crowd import Crowd
from phase.fetch.transfer import Chunks
from phase.fetch.way import Way
from phase.release.manifest import Artifact, Manifest


class Assembly:
    """The initrd of one boot; keeps from one attempt to the next what has arrived.

    Args:
        machine: gives the file.
        liars: providers that have sent wrong bytes: not asked for any more of them; new ones are added.
        way: how to get to providers.
        share: whether other machines on this network may have what arrives, while it does.
    """

    def __init__(self, machine: Machine, liars: set[str], way: Way, *, share: bool = False) -> None:
        self._machine = machine
        self._way = way
        self._liars = liars
        self._share = share
        #: The machines that fetch the same now, and hosts among them that have sent wrong bytes.
        self._crowd: Crowd | None = None
        self._false_hosts: set[str] = set()
        #: The layout of the file, and hashes of what an attempt has begun to put into it.
        self._layout: tuple[object, ...] = ()
        self._begun: set[str] = set()

    def fetch(
        self,
        manifest: Manifest,
        metadata: dict[str, bytes],
        urls: Sequence[str],
        *,
        kept: Cache | None,
        contents: Collection[str],
        seconds: float,
        here: Chunks | None = None,
    ) -> initrd.Plan:
        """Get every artifact to its place.

        Args:
            manifest: verified.
            metadata: that proves it.
            urls: of the providers; none where all must come from the cache.
            kept: the cache, where there is one.
            contents: names of the artifacts that stay in it.
            seconds: for all of it.
            here: chunks that this machine has in files of other releases.

        Returns:
            The layout of the file, every byte of which is verified or our own.
        """
        deadline = time.monotonic() + seconds
        self.stop_sharing()
        if "rootfs" not in manifest.artifacts:
            raise BootError(
                f"release {manifest.release} of {manifest.channel}/{manifest.arch} has no rootfs"
            )
        plan = initrd.plan(manifest, metadata)
        places = {slot.sha256: slot.offset for slot in plan.slots}
        self._check_memory(manifest, plan)
        out = self._prepare(plan)
        length = sum(artifact.length for artifact in manifest.artifacts.values())
        progress = fetch.Progress(length, lambda line: marks.say(f"fetch: {line}"))
        self._crowd = crowd = self._meet(urls, manifest)
        take = _Take(
            out, urls, deadline, kept, contents, places, self._begun, self._liars, self._way, here, crowd
        )
        reports: list[FetchReport] = []
        for name in sorted(manifest.artifacts):
            reports.append(take.one(manifest.artifacts[name], progress.artifact()))
        if kept and urls:
            if_it_can(kept.remember, metadata, contents)
        marks.emit("fetch", "ok", t=None, **_told(reports))
        return plan

    def stop_sharing(self) -> None:
        """Give others nothing any more: the file changes, or this machine becomes another."""
        if self._crowd is not None:
            self._crowd.close()
            self._crowd = None

    def _meet(self, urls: Sequence[str], manifest: Manifest) -> Crowd | None:
        """Look for machines that fetch the same release; None where there are none to look for."""
        if not (self._share and urls):
            return None
        crowd = Crowd(urls, manifest.artifacts["rootfs"].sha256, self._false_hosts)
        crowd.start()
        return crowd

    def verify(
        self, manifest: Manifest, plan: initrd.Plan, running: str, more: tuple[str, ...] = ()
    ) -> Kernel:
        """Complete the file and look at the kernel in it.

        Args:
            manifest: verified.
            plan: what `fetch` returned.
            running: the running kernel's command line.
            more: words for the next one's.
        """
        out = self._machine.open_initrd()
        places = {slot.sha256: slot.offset for slot in plan.slots}
        kernel, second, rootfs = (manifest.artifacts[name] for name in ("kernel", "initramfs", "rootfs"))
        head = os.pread(out, image_check.HEADER_BYTES, places[kernel.sha256])
        image_check.check_kernel(head, manifest.arch)
        _copy(out, places[second.sha256], second.length, plan.tail)
        marks.emit("verify", rootfs=rootfs.sha256, kernel=kernel.sha256)
        also = memory.root_words(plan.size, self._machine.memory()) + more
        composed = cmdline.compose_within(manifest.cmdline, running, rootfs=rootfs.sha256, also=also)
        if composed.left_out:
            marks.say(f"too long for the next kernel, left out: {' '.join(composed.left_out)[:200]}")
        return Kernel(out, head, (places[kernel.sha256], kernel.length), plan.size, composed.line)

    def _check_memory(self, manifest: Manifest, plan: initrd.Plan) -> None:
        """Refuse now what could not be started in the end: a fetch takes minutes."""
        there = os.fstat(self._machine.open_initrd()).st_blocks * 512
        load = memory.Load(
            plan.size,
            self._machine.kernel_memory(manifest.artifacts["kernel"].length),
            max(plan.size - there, 0),
        )
        memory.check(load, self._machine.memory(), f"release {manifest.release}")

    def _prepare(self, plan: initrd.Plan) -> int:
        """Give the file its size and all that is not an artifact."""
        out = self._machine.open_initrd()
        layout = (plan.slots, plan.tail, plan.size)
        if layout != self._layout:
            # Bytes of another layout would stand at places that are not verified.
            os.truncate(out, 0)
            self._layout = layout
            self._begun.clear()
        os.truncate(out, plan.size)
        for offset, data in plan.pieces:
            files.pwrite(out, data, offset)
        return out


class _Take:
    """Getting one artifact after the other: first what the cache has, the rest from providers."""

    def __init__(
        self,
        out: int,
        urls: Sequence[str],
        deadline: float,
        kept: Cache | None,
        contents: Collection[str],
        places: dict[str, int],
        begun: set[str],
        liars: set[str],
        way: Way,
        here: Chunks | None,
        crowd: Crowd | None,
    ) -> None:
        self._here = here
        self._crowd = crowd
        self._out = out
        self._way = way
        self._urls = urls
        self._deadline = deadline
        self._cache = kept
        self._contents = contents
        self._places = places
        self._begun = begun
        self._liars = liars

    def one(self, artifact: Artifact, progress: Callable[[int, int], None]) -> FetchReport:
        """Get one artifact to its place: what an attempt before has, or the cache, the rest from providers.

        Args:
            artifact: which.
            progress: is told of it, as `fetch_artifact` tells.
        """
        # Nothing is resumed that was never begun: to verify an empty file takes as long as a full one.
        begun = artifact.sha256 in self._begun
        kept = None
        if self._cache is not None:
            kept = self._cache.open(artifact.content, artifact.length, self._contents)
        if self._cache is None or kept is None:
            self._begun.add(artifact.sha256)
            return self._fetch(artifact, progress, resume=begun, keep_fd=None)
        there = 0
        offset = self._places[artifact.sha256]
        try:
            # Once: what has been fetched since may be more than the disk could take.
            for start, data in () if begun else cache.blocks(kept, artifact.length):
                files.pwrite(self._out, data, offset + start)
                there += len(data)
            self._begun.add(artifact.sha256)
            # The resume verifies what was copied, there where it will be booted from.
            report = self._fetch(
                artifact,
                progress,
                resume=begun or there > 0,
                keep_fd=kept if self._cache.writable else None,
            )
        finally:
            os.close(kept)
        if report.unkept:
            marks.say(f"cache: {artifact.name} is not kept: {report.unkept}")
        return report

    def _fetch(
        self,
        artifact: Artifact,
        progress: Callable[[int, int], None],
        *,
        resume: bool,
        keep_fd: int | None,
    ) -> FetchReport:
        return fetch.fetch_artifact(
            artifact,
            self._urls,
            self._out,
            offset=self._places[artifact.sha256],
            deadline=self._deadline,
            progress=progress,
            resume=resume,
            keep_fd=keep_fd,
            liars=self._liars,
            way=self._way,
            here=self._here,
            crowd=self._crowd,
        )


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
        "reused": sum(report.reused for report in reports),
        "sources": " ".join(f"{url}={size}" for url, size in sources.items()),
    }
    if dropped:
        facts["dropped"] = "; ".join(dropped.values())
    return facts


def _copy(file: int, start: int, length: int, offset: int) -> None:
    """Copy within a file, a megabyte at a time: the whole would stand in memory once more."""
    done = 0
    while done < length:
        block = os.pread(file, min(1 << 20, length - done), start + done)
        if not block:
            raise BootError("the initrd file is shorter than it was written")
        files.pwrite(file, block, offset + done)
        done += len(block)
