"""Machines that fetch the same release at the same time, and give it to each other.

Who they are, a provider says: each tells it the port it shares on, and asks who else does (`GET
/peers/sha256/HASH?port=PORT`). That is a hint and no more. Only machines on this machine's own networks are
asked, and every chunk of theirs is verified like one of a provider. A provider without that page, such as a
plain web server, is asked once.
"""

import ipaddress
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Condition, Thread
from time import monotonic
from typing import NamedTuple

from phase.digest import sha256_hex
from phase.errors import printable
from phase.fetch.errors import FetchError, NoSuchFileError, ProtocolError, ProviderFailedError
from phase.fetch.http import Connection, parse_url
from phase.fetch.sharing import LOWEST_PORT, Sharing
from phase.fetch.transfer import Transfer
from phase.fetch.way import DIRECT

#: Limits for an answer of a provider, bytes, and for the machines it names.
MAX_ANSWER, MAX_TOLD = 4096, 16
#: Limits for the machines asked at the same time, and for all that are ever asked for one artifact.
MAX_PEERS, MAX_TRIED = 8, 256
#: How often one of them is tried.
MAX_TRIES = 8
#: Bytes for chunks on their way from them, where chunks are long: a seed may have little memory.
MAX_BUFFERS = 8 << 20
#: Seconds for the first question, which the fetch waits for, and for a later one.
FIRST_SECONDS, ASK_SECONDS = 1.0, 5.0
#: Seconds between two questions; the second number is reached where this machine is alone.
AGAIN_SECONDS = (1.0, 5.0)
#: Seconds between two questions where somebody unknown has found this machine.
VISITED_SECONDS = 0.1
#: Seconds after which a machine is asked anew what it has.
LOOK_SECONDS = 0.4
#: Failures in a row after which a provider is not asked for others any more.
ATTEMPTS = 3
#: Seconds that others may bring nothing when no provider is left.
OUTLAST_SECONDS = 10.0
#: Letters of a line: an IPv6 address in brackets, and a port.
_MAX_LINE = 64
#: Digits of the number of machines.
_DIGITS = 6
_NEAR = DIRECT._replace(near=True)


class Told(NamedTuple):
    """What a provider says.

    Attributes:
        machines: how many fetch the same, this one counted in.
        urls: of some of them, those that may be asked.
    """

    machines: int
    urls: list[str]


def read_peers(data: bytes, provider: str) -> Told:
    """Read what a provider says of other machines.

    Args:
        data: its answer, bounded: the number of machines, then an address and a port on each line.
        provider: its host. A link-local address is meant on the network that it is on; an address of this
            machine alone is taken from this machine alone.
    """
    count, *lines = data.decode("ascii", "replace").split("\n", MAX_TOLD + 1)[: MAX_TOLD + 1]
    machines = int(count) if count.isdecimal() and len(count) <= _DIGITS else 0
    found = (_url(each, provider) for each in lines)
    return Told(max(machines, 1), list(dict.fromkeys(url for url in found if url)))


def _url(text: str, provider: str) -> str:
    host, _, port = text.rpartition(":")
    if len(text) > _MAX_LINE:
        return ""
    if not (port.isascii() and port.isdecimal() and len(port) == 5 and LOWEST_PORT <= int(port) < 65_536):
        return ""
    try:
        ip = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return ""
    zone = provider.partition("%")[2]
    if ip.is_multicast or ip.is_unspecified or ip.is_reserved or "%" in host:
        return ""
    if ip.is_loopback and not _is_loopback(provider):
        return ""
    if ip.version == 4:
        return f"http://{ip}:{port}"
    if ip.is_link_local and not zone:
        return ""
    return f"http://[{ip}{f'%25{zone}' if ip.is_link_local else ''}]:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Crowd:
    """Shares one release until it is closed. Not for two fetches at the same time.

    Args:
        providers: those of the release.
        digest: hash of an artifact of the release, in hex: under it the machines find each other.
        banned: hosts that have sent wrong bytes, and are asked for nothing; new ones are added.
    """

    def __init__(self, providers: Sequence[str], digest: str, banned: set[str]) -> None:
        self._digest = digest
        self._banned = banned
        self._transfers: dict[str, Transfer] = {}
        self._sharing: Sharing | None = None
        self._changed = Condition()
        self._closed = False
        self._known = Told(1, [])
        self._visited = False
        self._shared: Shared | None = None
        self._asker = Thread(target=self._ask, name="crowd", daemon=True)
        self._meeting = []
        for url in providers:
            with suppress(FetchError):
                self._meeting.append(_Meeting(url, digest))

    def start(self) -> None:
        """Begin to share, and ask who else does. Where it cannot be, the fetch goes on alone."""
        try:
            self._sharing = Sharing(self._transfers, self._visit)
        except OSError:
            return
        self._round(FIRST_SECONDS)
        with suppress(RuntimeError):
            self._asker.start()

    @property
    def sent(self) -> int:
        """Bytes of chunks that others were given."""
        return self._sharing.sent if self._sharing else 0

    def close(self) -> None:
        """Share no more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for each in self._meeting:
            each.connection.abort()
        if self._asker.ident is not None:
            self._asker.join()
        for each in self._meeting:
            each.connection.close()
        if self._sharing is not None:
            self._sharing.close()

    @contextmanager
    def shared(self, transfer: Transfer) -> "Iterator[Shared | None]":
        """Give an artifact to others, now and later, and take it from them while it is fetched."""
        if self._sharing is None:
            yield None
            return
        self._transfers[transfer.artifact.sha256] = transfer
        shared = Shared(transfer, self._banned)
        with self._changed:
            self._shared = shared
            shared.meet(self._known)
        try:
            yield shared
        finally:
            with self._changed:
                self._shared = None
            shared.end()

    def _ask(self) -> None:
        pause = AGAIN_SECONDS[0]
        while self._wait(pause) and self._meeting:
            self._round(ASK_SECONDS)
            # One that boots alone costs its provider next to nothing.
            pause = AGAIN_SECONDS[0] if self._known.urls else min(2 * pause, AGAIN_SECONDS[1])

    def _wait(self, pause: float) -> bool:
        """Wait for the next question; whether there is one."""
        begun = monotonic()
        with self._changed:
            while not self._closed:
                left = begun + (VISITED_SECONDS if self._visited else pause) - monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            self._visited = False
            return not self._closed

    def _visit(self) -> None:
        """Another machine has found this one: ask soon who it is, if that is not known."""
        with self._changed:
            if not self._known.urls:
                self._visited = True
                self._changed.notify_all()

    def _round(self, seconds: float) -> None:
        """Ask every provider who shares."""
        port = self._sharing.port if self._sharing else 0
        end = monotonic() + seconds
        found = [told for each in self._meeting if (told := each.ask(port, end))]
        for each in self._meeting:
            if each.failures >= ATTEMPTS:
                each.connection.close()
        self._meeting = [each for each in self._meeting if each.failures < ATTEMPTS]
        with self._changed:
            urls = dict.fromkeys(url for told in found for url in told.urls)
            # One provider that says too much must not make this machine ask the others too seldom.
            self._known = Told(min((told.machines for told in found), default=1), list(urls))
            if self._shared is not None:
                self._shared.meet(self._known)


class _Meeting:
    """A provider at which machines find each other."""

    def __init__(self, url: str, digest: str) -> None:
        self._path = f"/peers/sha256/{digest}"
        self.connection = Connection(parse_url(url))
        self.failures = 0

    def ask(self, port: int, end: float) -> Told | None:
        """Say which port this machine shares on; returns who else does, None where it does not say."""
        try:
            answer = self.connection.get(f"{self._path}?port={port}", deadline=end)
            data = answer.read(MAX_ANSWER)
        except NoSuchFileError:
            self.failures = ATTEMPTS
            return None
        except ProviderFailedError:
            self.failures += 1
            return None
        self.failures = 0
        return read_peers(data, self.connection.url.host)


class Shared:
    """One artifact that this machine takes from others, too.

    Args:
        transfer: its chunks.
        banned: as of `Crowd`.
    """

    def __init__(self, transfer: Transfer, banned: set[str]) -> None:
        #: Verified bytes by the address they came from.
        self.delivered: dict[str, int] = {}
        self._transfer = transfer
        self._banned = banned
        self._peers: dict[str, tuple[_Peer, Thread]] = {}
        self._tried: dict[str, int] = {}

    def meet(self, told: Told) -> None:
        """Ask these machines, too, as far as there is room."""
        self._transfer.counted(told.machines)
        alive = {url: each for url, each in self._peers.items() if each[1].is_alive()}
        self._peers = alive
        most = max(min(MAX_PEERS, MAX_BUFFERS // self._transfer.longest), 1)
        for url in told.urls:
            tries = self._tried.get(url, 0)
            full = len(alive) >= most or (not tries and len(self._tried) >= MAX_TRIED)
            if url in alive or full or tries >= MAX_TRIES or not self._transfer.going():
                continue
            peer = _Peer(self._transfer, url, self._banned, self.delivered)
            if peer.host in self._banned:
                continue
            thread = Thread(target=peer.run, daemon=True)
            # From now on a provider is asked for parts, and not for the whole.
            self._transfer.told(url, b"")
            try:
                thread.start()
            except RuntimeError:
                self._transfer.lost(url)
                return  # no more threads: it goes on with those that there are
            self._tried[url] = tries + 1
            alive[url] = peer, thread

    def outlast(self) -> None:
        """No provider is left: wait as long as others bring something."""
        transfer = self._transfer
        missing, until = transfer.missing, monotonic() + OUTLAST_SECONDS
        while transfer.going() and transfer.others and monotonic() < until:
            transfer.pause(LOOK_SECONDS)
            if transfer.missing < missing:
                missing, until = transfer.missing, monotonic() + OUTLAST_SECONDS

    def end(self) -> None:
        """Ask no machine any more."""
        for peer, _ in self._peers.values():
            peer.end()
        for _, thread in self._peers.values():
            thread.join()


class _Peer:
    """Another machine, and the connection to it."""

    def __init__(self, transfer: Transfer, url: str, banned: set[str], delivered: dict[str, int]) -> None:
        parsed = parse_url(url)
        self.host = parsed.host
        self._url = url
        self._connection = Connection(parsed, _NEAR)
        self._transfer = transfer
        self._banned = banned
        self._delivered = delivered
        self._ended = False

    def end(self) -> None:
        """End `run`, in its thread, soon."""
        self._ended = True
        self._connection.abort()

    def run(self) -> None:
        """Take what it has, until nothing is missing or it is gone; no failure of it is one of the fetch."""
        transfer = self._transfer
        buffer = memoryview(bytearray(transfer.longest))
        try:
            while transfer.going() and not self._ended:
                bitmap, asked = self._have(), monotonic()
                transfer.told(self._url, bitmap)
                while monotonic() < asked + LOOK_SECONDS and (run := transfer.take_from(bitmap)):
                    self._fetch(run, buffer)
                transfer.pause(asked + LOOK_SECONDS - monotonic())
        except ProviderFailedError:
            pass
        except BaseException as error:
            transfer.fail(error)
        finally:
            transfer.lost(self._url)
            self._connection.close()

    def _have(self) -> bytes:
        artifact = self._transfer.artifact
        size = (len(artifact.chunks) + 7) >> 3
        answer = self._connection.get(f"/have/sha256/{artifact.sha256}", deadline=self._transfer.deadline)
        # A shorter one has none of the last chunks.
        return answer.read(size)

    def _fetch(self, run: range, buffer: memoryview) -> None:
        transfer, artifact, done = self._transfer, self._transfer.artifact, run.start
        try:
            answer = self._connection.get(
                f"/blobs/sha256/{artifact.sha256}",
                deadline=transfer.deadline,
                first=artifact.starts[run.start],
                last=artifact.starts[run.stop] - 1,
            )
            if not answer.partial or answer.total != artifact.length:
                raise ProtocolError(self._url, f"it does not have {printable(artifact.name)}")
            for index in run:
                data = buffer[: transfer.size(index)]
                answer.read_into(data)
                if sha256_hex(data) != artifact.chunks[index]:
                    self._banned.add(self.host)
                    raise ProtocolError(self._url, f"chunk {index} of {artifact.name} is not the signed one")
                done = index + 1
                if transfer.add(index, data, shared=True):
                    self._delivered[self._url] = self._delivered.get(self._url, 0) + len(data)
            answer.finish()
        finally:
            if done < run.stop:
                transfer.give_back(range(done, run.stop))
