"""Fetches one artifact from one or many providers, and verifies every chunk before it is written.

The hashes of the chunks are signed together with the hash of the whole, and cover every byte. So a booting
machine does not hash the whole as well, which took a fifth of the transfer under emulation. A program that
names a file by the hash of the whole must compute it, since others rely on that name: two roles may name one
hash and describe different chunks.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import pairwise
from threading import Thread
from time import monotonic
from typing import NamedTuple

from phase.digest import sha256_hex
from phase.errors import printable
from phase.fetch.crowd import Crowd
from phase.fetch.errors import (
    ExhaustedError,
    FetchError,
    ProtocolError,
    ProviderFailedError,
    UrlError,
    VerificationError,
)
from phase.fetch.http import Connection, Response, parse_url
from phase.fetch.transfer import Chunks, Transfer, Wanted
from phase.fetch.way import DIRECT, Way
from phase.fetch.whole import followed

__all__ = ["FetchReport", "Wanted", "fetch_artifact"]
MAX_PROVIDERS = 16
MAX_CHUNK = 16 << 20
#: A provider that breaks off this often in a row, without a chunk in between, is given up.
ATTEMPTS = 2


class FetchReport(NamedTuple):
    """How an artifact was fetched."""

    name: str
    length: int
    #: Bytes that were there already and verified.
    kept: int
    #: Verified bytes by provider, or by machine that shares.
    sources: dict[str, int]
    #: Providers given up, with the reason.
    dropped: dict[str, str]
    seconds: float
    #: Why `keep_fd` does not have all of it; empty if it does.
    unkept: str = ""
    #: Bytes that were copied from other files of this machine, and verified.
    reused: int = 0

    @property
    def fetched(self) -> int:
        """Verified bytes that came from providers."""
        return sum(self.sources.values())


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
    whole: bool = False,
    way: Way = DIRECT,
    here: Chunks | None = None,
    crowd: Crowd | None = None,
) -> FetchReport:
    """Fetch an artifact into a file.

    Args:
        artifact: its description in the verified manifest.
        providers: addresses to get it from; the chunks are spread over all of them.
        out_fd: file open for reading and writing.
        offset: where in the file the artifact starts, bytes.
        deadline: `time.monotonic()` when it must be complete.
        progress: called with verified bytes and length, first for the chunks that were kept, then after each
            chunk, maybe from another thread.
        resume: keep chunks that the file holds already, if they verify.
        keep_fd: a file that gets every fetched chunk too, at its start, for a later `resume`. If it cannot
            be written, the fetch goes on.
        liars: providers that have sent wrong bytes before; they are not asked, and new ones are added. Use
            the same set for all artifacts and attempts.
        whole: also hash the whole while it arrives.
        way: how to get to the providers.
        here: chunks that other files of this machine may have: they are asked for before any provider.
        crowd: machines that fetch the same at the same time; they get from this one what it has.

    Raises:
        VerificationError: a provider's bytes are not the signed ones, and no other provider had them; or the
            signed chunks do not make a file of the signed hash.
        ExhaustedError: no provider is left; the message names each with its reason.
        FetchError: the artifact's description contradicts itself.
    """
    started = monotonic()
    _check(artifact)
    transfer = Transfer(artifact, out_fd, offset, deadline, progress, keep_fd)
    kept = transfer.keep_present() if resume else 0
    if progress is not None:
        progress(kept, artifact.length)
    reused = transfer.copy(here) if here else 0
    sources: list[_Source] = []
    unusable: dict[str, str] = {}
    known = liars if liars is not None else set()
    banned = [url for url in dict.fromkeys(providers) if url in known]
    for url in [url for url in dict.fromkeys(providers) if url not in known][:MAX_PROVIDERS]:
        try:
            sources.append(_Source(transfer, url, way))
        except UrlError as error:
            unusable[url] = str(error)
    transfer.providers = len(sources)
    # A single chunk is the whole file, and `_check` has compared the two hashes.
    with followed(transfer) if whole and len(artifact.chunks) > 1 else nullcontext() as digest:
        delivered = _get(transfer, sources, crowd)
        if digest is not None and not transfer.missing:
            found = digest.hexdigest()
            if transfer.failure is None:
                _check_whole(artifact, found)
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
        delivered,
        dropped,
        monotonic() - started,
        transfer.unkept,
        reused,
    )


def _check_whole(artifact: Wanted, found: str) -> None:
    if found != artifact.sha256:
        raise VerificationError(
            f"{artifact.name}: its signed chunks make a file of sha256 {found}, "
            f"but it is signed as {artifact.sha256}",
            hint="The publisher signed one of them wrong; nothing gets that name.",
        )


def _get(transfer: Transfer, sources: "list[_Source]", crowd: Crowd | None) -> dict[str, int]:
    """Get what is missing from all who have it; returns verified bytes by source."""
    with crowd.shared(transfer) if crowd else nullcontext() as shared:
        if len(sources) == 1:
            sources[0].run()
        else:
            _run_all(transfer, sources)
        if shared is not None:
            shared.outlast()
    delivered = {source.url: source.delivered for source in sources if source.delivered}
    return delivered | (shared.delivered if shared else {})


def _run_all(transfer: Transfer, sources: "list[_Source]") -> None:
    threads = [Thread(target=source.run, daemon=True) for source in sources]
    for thread in threads:
        thread.start()
    transfer.wait(threads)
    for source in sources:
        source.connection.abort()
    for thread in threads:
        thread.join()


class _Source:
    """One provider and its connection."""

    def __init__(self, transfer: Transfer, url: str, way: Way) -> None:
        self.url = url
        self.connection = Connection(parse_url(url), way)
        self.delivered = 0
        #: Why it was given up; empty while it is in use.
        self.reason = ""
        self.lied = False
        self._transfer = transfer

    def run(self) -> None:
        """Fetch until nothing is left to do, or until this provider is given up."""
        transfer = self._transfer
        buffer = memoryview(bytearray(transfer.longest))
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
        """Fetch some chunks, or all that are missing; returns why it could not."""
        transfer = self._transfer
        done, before, began = run.start, self.delivered, monotonic()
        try:
            answer = self._ask(run)
            if len(run) < len(transfer.artifact.chunks) and not answer.partial:
                whole, done = run, run.stop
                return self._stream(whole, answer, buffer)
            for index in run:
                if transfer.leaves(run, index):
                    self.connection.close()
                    return ""
                data = buffer[: transfer.size(index)]
                answer.read_into(data)
                if problem := self._lie(index, data):
                    return problem
                # It is not given back if writing it fails: no other provider could help then.
                done = index + 1
                if transfer.add(index, data):
                    self.delivered += len(data)
            answer.finish()
        except ProviderFailedError as error:
            self.connection.close()
            return str(error)
        finally:
            transfer.measured(self.delivered - before, monotonic() - began)
            if done < run.stop:
                transfer.give_back(range(done, run.stop))
        return ""

    def _stream(self, run: range, answer: Response, buffer: memoryview) -> str:
        """Take the missing chunks from an answer with the whole file; returns why it could not."""
        transfer = self._transfer
        transfer.begin_stream(run)
        try:
            for index in range(len(transfer.artifact.chunks)):
                if not transfer.missing or transfer.failure is not None:
                    break
                data = buffer[: transfer.size(index)]
                answer.read_into(data)
                if transfer.has(index):
                    continue
                if problem := self._lie(index, data):
                    return problem
                if transfer.add(index, data):
                    self.delivered += len(data)
        finally:
            transfer.end_stream()
        answer.finish()
        return ""

    def _lie(self, index: int, data: memoryview) -> str:
        """The problem of a chunk; empty if it is the signed one."""
        artifact = self._transfer.artifact
        found = sha256_hex(data)
        if found == artifact.chunks[index]:
            return ""
        self.lied = True
        self.connection.close()
        return (
            f"{self.url}: chunk {index} of {artifact.name} is not the signed one: "
            f"expected sha256 {artifact.chunks[index]}, found {found}"
        )

    def _ask(self, run: range) -> Response:
        artifact = self._transfer.artifact
        path = f"/blobs/sha256/{artifact.sha256}"
        deadline = self._transfer.deadline
        if len(run) == len(artifact.chunks):
            answer = self.connection.get(path, deadline=deadline)
        else:
            first, last = artifact.starts[run.start], artifact.starts[run.stop] - 1
            answer = self.connection.get(path, deadline=deadline, first=first, last=last)
        total = answer.total if answer.partial else answer.length
        if total is not None and total != artifact.length:
            self.connection.close()
            kind = printable(answer.content_type)
            raise ProtocolError(
                self.url,
                f"its {artifact.name} has {total} bytes{f' of {kind}' if kind else ''}, "
                f"the signed one {artifact.length}",
            )
        return answer


def _check(artifact: Wanted) -> None:
    """Check the description, as the manifest's model does: here it protects paths, memory and arithmetic."""
    length, starts, count = artifact.length, artifact.starts, len(artifact.chunks)
    hashes = (artifact.sha256, *artifact.chunks)
    if {*map(len, hashes)} != {64} or {*"".join(hashes)} - {*"0123456789abcdef"}:
        raise FetchError(f"{artifact.name}: the manifest holds a hash that is not SHA-256 in hex")
    if len(starts) != count + 1 or starts[0] or starts[-1] != length:
        raise FetchError(f"{artifact.name}: {count} chunks do not make {length} bytes")
    if any(not 0 < end - start <= MAX_CHUNK for start, end in pairwise(starts)):
        raise FetchError(f"{artifact.name}: a chunk has no bytes, or more than {MAX_CHUNK}")
    if count == 1 and artifact.chunks[0] != artifact.sha256:
        raise VerificationError(f"{artifact.name}: its only chunk and the whole have different hashes")
