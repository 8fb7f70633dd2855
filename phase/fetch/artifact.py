"""One artifact from one or many providers; every chunk verified before it touches the file.

The chunks' hashes are signed where the whole's is, and cover every byte. So the whole is not hashed
once more: that is for whoever publishes (`phase release verify`), and on emulated machines it cost a
fifth of the transfer.
"""

import os
from collections import deque
from collections.abc import Callable, Sequence
from hashlib import sha256
from threading import Condition, Thread
from time import monotonic
from typing import NamedTuple, Protocol

from phase.fetch.errors import (
    ExhaustedError,
    FetchError,
    ProtocolError,
    ProviderFailedError,
    UrlError,
    VerificationError,
)
from phase.fetch.http import Connection, Response, parse_url

MAX_PROVIDERS = 16
MAX_CHUNK = 16 << 20
#: Chunks asked for in one request while several providers share the work.
MAX_RUN = 16
#: A provider may break off this often in a row without a chunk between before it is given up.
ATTEMPTS = 2


class Wanted(Protocol):
    """What must be known of an artifact to fetch it; the manifest's `Artifact` is one."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def length(self) -> int:
        """Bytes."""

    @property
    def sha256(self) -> str:
        """Of the whole, lower-case hex."""

    @property
    def chunk_size(self) -> int:
        """Bytes of every chunk but the last."""

    @property
    def chunks(self) -> Sequence[str]:
        """SHA-256 of each chunk, lower-case hex."""


class FetchReport(NamedTuple):
    """How an artifact came here."""

    name: str
    length: int
    #: Bytes that were there already and verified.
    kept: int
    #: Verified bytes by provider.
    sources: dict[str, int]
    #: Providers given up, with the reason.
    dropped: dict[str, str]
    seconds: float
    #: Why `keep_fd` does not have all of it; nothing if it does.
    unkept: str = ""


def fetch_artifact(
    artifact: Wanted,
    providers: Sequence[str],
    out_fd: int,
    *,
    offset: int = 0,
    deadline: float,
    progress: Callable[[int, int], None] | None = None,
    resume: bool = False,
    keep_fd: int | None = None,
    liars: set[str] | None = None,
) -> FetchReport:
    """Fetch an artifact into a file.

    Args:
        artifact: what the verified manifest says of it.
        providers: addresses to get it from; the chunks are spread over all of them.
        out_fd: file open for reading and writing.
        offset: where in the file the artifact starts, bytes.
        deadline: `time.monotonic()` when it must be complete.
        progress: called with verified bytes and length, first of what was there already, then after each
            chunk, maybe from another thread.
        resume: keep chunks that the file holds already, where they verify.
        keep_fd: a file that gets every fetched chunk too, at its start, for a later `resume`; one that
            cannot take them stops nothing.
        liars: providers that have sent wrong bytes before; they are not asked, and new ones are added. Keep
            it for all artifacts and attempts.

    Raises:
        VerificationError: a provider's bytes are not the signed ones, and no other could help.
        ExhaustedError: no provider is left; names each with its reason.
        FetchError: the artifact's description does not hold together.
    """
    started = monotonic()
    _check(artifact)
    transfer = _Transfer(artifact, out_fd, offset, deadline, progress, keep_fd)
    kept = transfer.keep_present() if resume else 0
    if progress is not None:
        progress(kept, artifact.length)
    sources: list[_Source] = []
    unusable: dict[str, str] = {}
    known = liars if liars is not None else set()
    banned = [url for url in dict.fromkeys(providers) if url in known]
    for url in [url for url in dict.fromkeys(providers) if url not in known][:MAX_PROVIDERS]:
        try:
            sources.append(_Source(transfer, url))
        except UrlError as error:
            unusable[url] = str(error)
    transfer.providers = len(sources)
    if transfer.missing:
        if len(sources) == 1:
            sources[0].run()
        else:
            _run_all(transfer, sources)
    dropped = unusable | {source.url: source.reason for source in sources if source.reason}
    for source in sources:
        if source.lied:
            known.add(source.url)
    if transfer.failure is not None:
        raise transfer.failure
    if transfer.missing:
        reasons = [*dropped.values(), *(f"{url}: it has sent wrong bytes before" for url in banned)]
        lies = banned or any(source.lied for source in sources)
        kind = VerificationError if lies else ExhaustedError
        raise kind(
            f"{artifact.name}: {transfer.missing} of {len(artifact.chunks)} chunks could not be "
            f"fetched from any provider: {'; '.join(reasons) or 'none given'}"
        )
    return FetchReport(
        artifact.name,
        artifact.length,
        kept,
        {source.url: source.delivered for source in sources if source.delivered},
        dropped,
        monotonic() - started,
        transfer.unkept,
    )


def _run_all(transfer: "_Transfer", sources: "list[_Source]") -> None:
    threads = [Thread(target=source.run, daemon=True) for source in sources]
    for thread in threads:
        thread.start()
    transfer.wait(threads)
    for source in sources:
        source.connection.abort()
    for thread in threads:
        thread.join()


class _Transfer:
    """What is still missing, shared by the threads of all providers."""

    def __init__(
        self,
        artifact: Wanted,
        out_fd: int,
        offset: int,
        deadline: float,
        progress: Callable[[int, int], None] | None,
        keep_fd: int | None,
    ) -> None:
        self.artifact = artifact
        self.unkept = ""
        self._keep_fd = keep_fd
        self.deadline = deadline
        self.providers = 1
        self.failure: BaseException | None = None
        self.missing = len(artifact.chunks)
        self._fd = out_fd
        self._offset = offset
        self._progress = progress
        self._done = bytearray(len(artifact.chunks))
        self._pending = deque(range(len(artifact.chunks)))
        #: Chunk -> how many providers are at it.
        self._holders: dict[int, int] = {}
        self._bytes = 0
        self._changed = Condition()

    def size(self, index: int) -> int:
        return min(self.artifact.chunk_size, self.artifact.length - index * self.artifact.chunk_size)

    def keep_present(self) -> int:
        """Take over what the file holds already; returns its bytes."""
        kept = 0
        for index, expected in enumerate(self.artifact.chunks):
            block = os.pread(self._fd, self.size(index), self._offset + index * self.artifact.chunk_size)
            if len(block) == self.size(index) and sha256(block).hexdigest() == expected:
                self._done[index] = 1
                self._pending.remove(index)
                self.missing -= 1
                kept += len(block)
        self._bytes = kept
        return kept

    def take(self) -> range:
        """Neighbouring chunks for one request; empty when there is nothing left to do.

        Waits while others hold the last chunks, in case they drop them. When all is asked for, a
        free provider doubles the work of a slower one: the last chunks decide how long it takes.
        """
        with self._changed:
            while self.missing and self.failure is None:
                if self._pending:
                    return self._next_run()
                if self._holders:
                    # Who comes here holds none. However many are slow together, one that is not helps.
                    index = min(self._holders, key=lambda each: (self._holders[each], -each))
                    self._holders[index] += 1
                    return range(index, index + 1)
                left = self.deadline - monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            return range(0)

    def _next_run(self) -> range:
        limit = len(self._pending)
        if self.providers > 1:
            limit = max(1, min(MAX_RUN, limit // (2 * self.providers)))
        first = self._pending.popleft()
        run = range(first, first + 1)
        while len(run) < limit and self._pending and self._pending[0] == run.stop:
            self._pending.popleft()
            run = range(first, run.stop + 1)
        for index in run:
            self._holders[index] = self._holders.get(index, 0) + 1
        return run

    def give_back(self, run: range) -> None:
        """The holder will not deliver these."""
        with self._changed:
            for index in reversed(run):
                self._release(index)
                if not self._done[index] and index not in self._holders:
                    self._pending.appendleft(index)
            self._changed.notify_all()

    def put(self, index: int, data: memoryview) -> bool:
        """Write a verified chunk; false where another provider was quicker."""
        with self._changed:
            self._release(index)
            if self._done[index]:
                return False
        start = index * self.artifact.chunk_size
        _write(self._fd, data, self._offset + start)
        if self._keep_fd is not None and not self.unkept:
            try:
                _write(self._keep_fd, data, start)
            except OSError as error:
                self.unkept = error.strerror or str(error)
        with self._changed:
            if self._done[index]:
                return False
            self._done[index] = 1
            # A slower provider that is still at it must not make others help it.
            self._holders.pop(index, None)
            self.missing -= 1
            self._bytes += len(data)
            if not self.missing:
                self._changed.notify_all()
        if self._progress is not None:
            self._progress(self._bytes, self.artifact.length)
        return True

    def fail(self, error: BaseException) -> None:
        """Something failed that no other provider can mend, such as a full disk."""
        with self._changed:
            self.failure = self.failure or error
            self._changed.notify_all()

    def wait(self, threads: list[Thread]) -> None:
        """Until complete, failed, out of providers or out of time."""
        with self._changed:
            while self.missing and self.failure is None and any(thread.is_alive() for thread in threads):
                left = self.deadline - monotonic()
                if left <= 0:
                    return
                # A thread that ends without help from `put` or `fail` notifies nobody.
                self._changed.wait(min(left, 0.02))

    def _release(self, index: int) -> None:
        left = self._holders.get(index, 0) - 1
        if left > 0:
            self._holders[index] = left
        else:
            self._holders.pop(index, None)


class _Source:
    """One provider and its connection."""

    def __init__(self, transfer: _Transfer, url: str) -> None:
        self.url = url
        self.connection = Connection(parse_url(url))
        self.delivered = 0
        #: Why it was given up; nothing while it is in use.
        self.reason = ""
        self.lied = False
        self._transfer = transfer

    def run(self) -> None:
        """Fetch until there is nothing left to do, or this provider is of no more use."""
        transfer = self._transfer
        buffer = memoryview(bytearray(min(transfer.artifact.chunk_size, max(transfer.artifact.length, 1))))
        failures = 0
        try:
            while run := transfer.take():
                before = self.delivered
                reason = self._fetch(run, buffer)
                if not reason:
                    failures = 0
                    continue
                failures = 1 if self.delivered > before else failures + 1
                over = monotonic() >= transfer.deadline or failures >= ATTEMPTS
                if self.lied or (over and transfer.missing):
                    self.reason = reason
                    return
        except BaseException as error:
            transfer.fail(error)
        finally:
            self.connection.close()

    def _fetch(self, run: range, buffer: memoryview) -> str:
        """Fetch some chunks; returns why it could not."""
        transfer, artifact = self._transfer, self._transfer.artifact
        done = run.start
        try:
            answer = self._ask(run)
            for index in run:
                data = buffer[: transfer.size(index)]
                answer.read_into(data)
                found = sha256(data).hexdigest()
                if found != artifact.chunks[index]:
                    self.lied = True
                    self.connection.close()
                    return (
                        f"{self.url}: chunk {index} of {artifact.name} is not the signed one: "
                        f"expected sha256 {artifact.chunks[index]}, found {found}"
                    )
                # Not given back even if writing it fails: then no other provider could help.
                done = index + 1
                if transfer.put(index, data):
                    self.delivered += len(data)
        except ProviderFailedError as error:
            self.connection.close()
            return str(error)
        finally:
            if done < run.stop:
                transfer.give_back(range(done, run.stop))
        return ""

    def _ask(self, run: range) -> Response:
        artifact = self._transfer.artifact
        path = f"/blobs/sha256/{artifact.sha256}"
        deadline = self._transfer.deadline
        if len(run) == len(artifact.chunks):
            answer = self.connection.get(path, deadline=deadline)
            total: int | None = answer.length
        else:
            first = run.start * artifact.chunk_size
            last = min(run.stop * artifact.chunk_size, artifact.length) - 1
            answer = self.connection.get(path, deadline=deadline, first=first, last=last)
            total = answer.total
        if total is not None and total != artifact.length:
            self.connection.close()
            raise ProtocolError(
                self.url, f"its {artifact.name} has {total} bytes, the signed one {artifact.length}"
            )
        return answer


def _write(file: int, data: memoryview, offset: int) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(file, data[written:], offset + written)


def _check(artifact: Wanted) -> None:
    """The manifest's model checks this too; here it guards paths, memory and arithmetic."""
    size, length = artifact.chunk_size, artifact.length
    hashes = (artifact.sha256, *artifact.chunks)
    if any(len(text) != 64 or set(text) - set("0123456789abcdef") for text in hashes):
        raise FetchError(f"{artifact.name}: the manifest holds a hash that is not SHA-256 in hex")
    if length < 0 or not 0 < size <= MAX_CHUNK or len(artifact.chunks) != -(-length // size):
        raise FetchError(
            f"{artifact.name}: {length} bytes in chunks of {size} do not make {len(artifact.chunks)} chunks"
        )
    if len(artifact.chunks) == 1 and artifact.chunks[0] != artifact.sha256:
        raise VerificationError(f"{artifact.name}: its only chunk and the whole have different hashes")
