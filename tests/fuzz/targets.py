"""Every parser that meets bytes from the network, as one function of bytes each.

A target raises nothing for any input: what it calls may refuse with its own errors, and nothing else.
Where something is accepted, the target checks what acceptance promises.
"""

import asyncio
import atexit
import json
import shutil
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from time import monotonic
from typing import Any, NamedTuple

from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from phase import cmdline, dsse, trust
from phase.boot import advertisement
from phase.boot import cache as boot_cache
from phase.cli.provider import describe, read_status
from phase.discovery.dht import announcement
from phase.discovery.dht import wire as dht_wire
from phase.discovery.dht.announcement import AnnouncementError
from phase.discovery.dht.endpoint import Endpoint
from phase.discovery.dht.node import Dht
from phase.discovery.records import from_txt
from phase.fetch import http
from phase.fetch.errors import FetchError
from phase.identity import Identity
from phase.jobs import receipt
from phase.jobs.errors import JobError
from phase.provider import catalog, page, ranges
from phase.provider.errors import RepositoryError
from phase.release.errors import ManifestError
from phase.release.keys import ReleaseKeys
from phase.release.manifest import Manifest
from phase.release.repository import Repository
from phase.trust import wire
from phase.trust.errors import TrustError
from tests.fuzz import local, publishing, work
from tests.fuzz.publishing import short

Target = Callable[[bytes], None]
NOW = datetime(2027, 1, 1, tzinfo=UTC)
ROLES: dict[str, type[Any]] = {
    "root": Root,
    "timestamp": Timestamp,
    "snapshot": Snapshot,
    "targets": Targets,
    "stable-x86_64": Targets,
}
FILES = {"timestamp": "timestamp.json"}


@cache
def published() -> dict[str, bytes]:
    """A real repository's metadata, to start from."""
    with TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "kernel").write_bytes(b"K" * 100)
        repository = Repository.create(directory / "r", keys=ReleaseKeys.from_seed("fuzz"), now=NOW)
        repository.add("stable", "x86_64", {"kernel": directory / "kernel"}, release="1", cmdline="quiet")
        repository.publish()
        return repository.metadata()


def role(name: str) -> Target:
    """TUF metadata of a role: read, signatures looked at, the manifest taken out."""

    def run(data: bytes) -> None:
        try:
            signed, opened = wire.read(data, ROLES[name], name=name, max_bytes=1 << 20)
            assert opened.payload
            if isinstance(signed, Targets):
                Manifest.from_role("stable-x86_64", signed)
        except (TrustError, ManifestError) as error:
            short(error)

    return run


def refresh(name: str) -> Target:
    """A whole refresh with one file replaced: it may be refused, never believed if it was changed."""

    def run(data: bytes) -> None:
        files = published()
        file = FILES.get(name, f"1.{name}.json")
        offered = files | {file if name != "root" else "2.root.json": data}

        def get(asked: str, limit: int) -> bytes:
            if asked not in offered:
                raise trust.NotFoundError(asked)
            return offered[asked][: limit + 1]

        try:
            found = trust.refresh(files["1.root.json"], get, channel="stable", arch="x86_64", now=NOW)
        except TrustError as error:
            short(error)
        else:
            assert signed_part(data) == signed_part(files[file])
            assert found.manifest.release == "1"

    return run


def cached(name: str) -> Target:
    """A whole refresh from an honest provider, with one file of its own cache replaced: it costs a fetch."""

    def run(data: bytes) -> None:
        files = published()
        file = FILES.get(name, f"1.{name}.json")

        def get(asked: str, limit: int) -> bytes:
            if asked not in files:
                raise trust.NotFoundError(asked)
            return files[asked][: limit + 1]

        found = trust.refresh(
            files["1.root.json"],
            get,
            channel="stable",
            arch="x86_64",
            now=NOW,
            cached=files | {file: data},
        )
        assert found.manifest.release == "1"
        for kept, content in found.metadata.items():
            assert signed_part(content) == signed_part(files[kept])

    return run


def served(name: str) -> Target:
    """A repository with one file replaced, as a provider reads it: it may only refuse."""

    def run(data: bytes) -> None:
        file = FILES.get(name, f"1.{name}.json")
        directory = on_disk(name)
        (directory / "metadata" / file).write_bytes(data)
        try:
            found = catalog.load(directory)
        except RepositoryError as error:
            short(error)
            return
        for why in found.refused.values():
            assert len(why) < 1000
        for digest, lengths in found.blobs.items():
            assert len(digest) == 64
            assert min(lengths) >= 0
        for release in found.releases.values():
            for text in (release.channel, release.arch):
                assert text.isascii()
                assert not set(text) & set("/\0\r\n ")

    return run


@cache
def on_disk(name: str) -> Path:
    """A repository of a target's own, for as long as this process lives."""
    directory = Path(mkdtemp(prefix="phase-fuzz-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    (directory / "metadata").mkdir()
    for file, data in published().items():
        (directory / "metadata" / file).write_bytes(data)
    return directory


def said_status(data: bytes) -> None:
    """What a provider says of itself, as whoever asks for it reads and prints it."""
    try:
        found = read_status("http://192.0.2.1", data)
    except FetchError as error:
        short(error)
    else:
        assert describe(found).isprintable()
        assert page.render(found)


def disk_label(data: bytes) -> None:
    """The first bytes of any disk that a machine happens to have."""
    if boot_cache.is_ours(data):
        assert data[1024 + 0x78 :].startswith(b"phase-cache")


def signed_part(data: bytes) -> object:
    """What a signature is over; another order or spacing is the same."""
    return json.loads(data)["signed"]


def floor(data: bytes) -> None:
    """The remembered floor, as a cache disk holds it."""
    with TemporaryDirectory() as name:
        path = Path(name, "floor.json")
        path.write_bytes(data)
        try:
            trust.floor.load(path)
        except TrustError as error:
            short(error)


NODE = Identity.from_seed(b"\1" * 32)
#: Where its announcements stand in the DHT.
PLACE = announcement.key("stable", "x86_64")


def envelope(data: bytes) -> None:
    """A DSSE envelope."""
    try:
        body = dsse.verify(data, keys=[NODE.public_key], payload_type="text/plain")
    except dsse.DsseError as error:
        short(error)
    else:
        assert body == b"body"


def receipts(data: bytes) -> None:
    """A receipt, in its envelope; then the same text as a body that was really signed."""
    data = data.decode("utf-8", "ignore").encode()
    for offered in (data, dsse.sign(receipt.PAYLOAD_TYPE, data, [NODE])):
        try:
            receipt.verify(offered, key=NODE.public_key)
        except (JobError, dsse.DsseError) as error:
            short(error)


def response(data: bytes) -> None:
    """An HTTP answer, over a real socket pair."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data[:60_000])
        theirs.shutdown(socket.SHUT_WR)
        connection = http.Connection(http.parse_url("http://192.0.2.1:1"))
        connection._socket = ours
        connection._closed = True  # it must not try to reach the address
        first = len(data) % 2 or None
        try:
            connection.get("/x", deadline=monotonic() + 5, first=first, last=first and 9)
        except FetchError as error:
            short(error)


def head(data: bytes) -> None:
    """Status line and headers."""
    try:
        status, headers = http.parse_head(data)
    except ValueError:
        pass  # the caller makes its own error of it
    else:
        assert 0 <= status <= 999
        assert len(headers) <= http.MAX_HEADERS + 1


def url(data: bytes) -> None:
    """A provider's address, as discovery or the command line gives it."""
    try:
        found = http.parse_url(data.decode("utf-8", "surrogateescape"))
    except FetchError as error:
        short(error)
    else:
        assert 0 < found.port < 65_536
        assert "\r" not in found.authority + found.prefix


def range_header(data: bytes) -> None:
    """What a client of the provider asks for."""
    text = data.decode("latin-1")
    parts = [*text.split("\0"), "", "", ""][:3]
    length = len(data) * 7
    chosen = ranges.select(parts[0], parts[1] or None, "sha256-x", length)
    if isinstance(chosen, ranges.Part):
        assert 0 <= chosen.first < length
        assert 0 < chosen.length <= length - chosen.first
    ranges.not_modified(parts[2], "sha256-x")
    ranges.precondition_failed(parts[2], "sha256-x")


def txt(data: bytes) -> None:
    """An mDNS answer's TXT record, address and port."""
    fields = data.split(b"\0")
    pairs: dict[bytes, bytes | None] = {
        b"txtvers": b"1",
        b"channel": b"stable",
        b"arch": b"x86_64",
        b"id": b"x",
    }
    address = fields[0].decode("latin-1")
    for field in fields[2:]:
        key, equals, value = field.partition(b"=")
        pairs[key] = value if equals else None
    port = int.from_bytes(fields[1][:4], "big") if len(fields) > 1 else None
    found = from_txt(pairs, address, port, channel="stable", arch="x86_64")
    if found is not None:
        http.parse_url(found.url)
        assert found.id.isascii()
        assert found.id.isprintable()


def router(data: bytes) -> None:
    """A router advertisement: what becomes of it are a few lines of resolv.conf."""
    lines = advertisement.parse(data).lines("eth0")
    assert len(lines) <= 9
    assert all(line.isascii() and line.isprintable() for line in lines)
    assert all(len(line.split(" ")) == 2 for line in lines)


class Cable(asyncio.DatagramTransport):
    """Keeps what an endpoint sends; a question is answered at once, where there is an answer."""

    def __init__(self, endpoint: Endpoint, answer: bytes | None = None) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self._endpoint = endpoint
        self._answer = answer
        endpoint.connection_made(self)

    def sendto(self, data: Any, addr: Any = None) -> None:
        """As asyncio's."""
        self.sent.append(data)
        if self._answer is not None:
            self._endpoint.datagram_received(
                bytes((dht_wire.ANSWER,)) + data[1 : 1 + dht_wire.ID_BYTES] + self._answer, addr
            )

    def is_closing(self) -> bool:
        """As asyncio's."""
        return False

    def close(self) -> None:
        """As asyncio's."""


def dht_datagram(data: bytes) -> None:
    """A datagram from anybody, at a node that serves: it says little, and keeps nothing yet."""

    async def take() -> None:
        node = Dht(serves=True)
        endpoint = node._endpoint
        cable = Cable(endpoint)
        endpoint.datagram_received(data, ("192.0.2.9", 4000))
        answering = list(endpoint._answering)
        for _ in range(4):
            await asyncio.sleep(0)
        for task in answering:
            if task.done():
                task.result()
        node.close()
        # An answer, a question back, a greeting.
        assert len(cable.sent) <= 3
        assert all(len(each) <= 600 for each in cable.sent)
        assert not len(node.held)

    asyncio.run(take())


def dht_answer(data: bytes) -> None:
    """What a node answers to each question there is."""

    async def ask() -> None:
        endpoint = Endpoint(None)
        Cable(endpoint, data)
        node = ("192.0.2.9", 4000)
        found = await endpoint.ask(node, dht_wire.Found, "find_value", PLACE, PLACE, seconds=5)
        nodes = found
        if isinstance(found, dht_wire.Values):
            nodes = found.nodes
            for envelope in found.envelopes:
                announced(envelope)
        for contact in dht_wire.usable(nodes or [], teller=node[0]):
            assert len(contact.id) == dht_wire.ID_BYTES
            assert 0 < contact.port < 65_536
            assert not contact.host.startswith("127.")
        await endpoint.ask(node, dht_wire.Seen, "stun", seconds=5)
        await endpoint.ask(node, bytes, "ping", PLACE, seconds=5)
        await endpoint.ask(node, bool, "store", PLACE, PLACE, b"x", seconds=5)

    if len(data) < dht_wire.MAX_DATAGRAM - dht_wire.ID_BYTES and data:
        asyncio.run(ask())


def announced(data: bytes) -> None:
    """An announcement in the DHT."""
    try:
        said = announcement.read(data, place=PLACE, now=NOW.timestamp())
    except AnnouncementError as error:
        short(error)
    else:
        http.parse_url(said.url)
        assert said.expires > NOW.timestamp()
        assert announcement.key(said.channel, said.arch) == PLACE


def kernel_line(data: bytes) -> None:
    """The kernel command line, and the one made for the next kernel."""
    text = data.decode("utf-8", "surrogateescape")
    text += '"' * (text.count('"') % 2)  # a quote left open would hold all that follows
    found = cmdline.parse(text)
    assert 0 < found.timeout <= 86_400
    made = cmdline.compose("quiet phase.channel=stable", text, rootfs="0" * 64)
    assert cmdline.parse(made).rootfs == "0" * 64
    assert cmdline.parse(made).channel == "stable"
    words = {word.partition("=")[0] for word in cmdline.split(made)}
    assert words <= {"quiet", "phase.rootfs", *cmdline.CARRIED}


class Case(NamedTuple):
    """A target and inputs it accepts, to start from."""

    run: Target
    seeds: tuple[bytes, ...]


STATUS = json.dumps(
    {
        "service": "phase-provider",
        "version": "1",
        "uptime_seconds": 1.5,
        "time": 1.5,
        "repository_problem": "",
        "repository_loads": 1,
        "releases": [
            {
                "channel": "stable",
                "arch": "x86_64",
                "version": 1,
                "release": "1",
                "expires": "2030-01-01T00:00:00Z",
                "manifest": "/stable/x86_64/manifest.json",
                "artifacts": {"kernel": 100},
            }
        ],
        "mdns": {"running": True, "instances": ["a"], "problem": "", "seen": ["b"]},
        "active_requests": 0,
        "requests": 1,
        "bytes_sent": 1,
    }
).encode()


@cache
def cases() -> dict[str, Case]:
    """Every target by name."""
    files = published()
    found = {}
    for name in ROLES:
        data = files[FILES.get(name, f"1.{name}.json")]
        found[f"role-{name}"] = Case(role(name), (data,))
        if name != "root":
            found[f"refresh-{name}"] = Case(refresh(name), (data,))
            found[f"cached-{name}"] = Case(cached(name), (data,))
            found[f"served-{name}"] = Case(served(name), (data,))
    found["refresh-root"] = Case(refresh("root"), (files["1.root.json"],))
    found["status"] = Case(said_status, (STATUS,))
    label = bytes(1024 + 0x38) + b"\x53\xef" + bytes(0x78 - 0x3A) + b"phase-cache".ljust(16, b"\0")
    found["disk-label"] = Case(disk_label, (label.ljust(2048, b"\0"),))
    kept = b'{"root": 1, "timestamp": 2, "snapshot": 2, "meta": {"a.json": 1}, "keys": {"a": ["b"]}}'
    found["floor"] = Case(floor, (kept,))
    found["dsse"] = Case(envelope, (dsse.sign("text/plain", b"body", [NODE]),))
    found["receipt"] = Case(receipts, (b'{"_type":"https://in-toto.io/Statement/v1","subject":[]}',))
    answer = b"HTTP/1.1 206 OK\r\nContent-Length: 9\r\nContent-Range: bytes 1-9/20\r\n\r\n123456789"
    found["http-response"] = Case(response, (answer, b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno"))
    found["http-head"] = Case(head, (answer.partition(b"\r\n\r\n")[0],))
    found["url"] = Case(url, (b"http://192.0.2.1:8080/a", b"http://[2001:db8::1]:80/"))
    asked = b"bytes=1-5", b"bytes=-5", b'bytes=0-\0"sha256-x"\0W/"sha256-x", "b"'
    found["range"] = Case(range_header, asked)
    said = bytes.fromhex("8600000040000708000000000000000019030000ffffffff")
    said += bytes.fromhex("20010db80000000000000000000000531f030000ffffffff076578616d706c65036f726700000000")
    found["router"] = Case(router, (said,))
    found["mdns-txt"] = Case(txt, (b"192.0.2.1\0\x1f\x90\0version=3\0id=ab",))
    word = announcement.sign(
        NODE, channel="stable", arch="x86_64", host="192.0.2.1", port=8080, version=1, now=NOW.timestamp()
    )
    found["announcement"] = Case(announced, (word,))
    questions = tuple(
        dht_wire.question(PLACE, name, *arguments)
        for name, arguments in {
            "ping": [PLACE],
            "stun": [],
            "find_value": [PLACE, PLACE],
            "store": [PLACE, PLACE, word],
        }.items()
    )
    found["dht-datagram"] = Case(dht_datagram, (*questions, dht_wire.answer(PLACE, True)))
    nodes = [(PLACE, "192.0.2.1", 4000)]
    answers = dht_wire.Values([word], nodes), nodes, ("192.0.2.1", 4000), PLACE, True
    found["dht-answer"] = Case(dht_answer, tuple(dht_wire.answer(PLACE, each)[21:] for each in answers))
    line = b'console=ttyS0 phase.mode=local phase.timeout=9 phase.provider=http://a,b phase.job="hello x"'
    found["cmdline"] = Case(kernel_line, (line,))
    found["mdns-heard"] = Case(local.heard, local.packets())
    found["mdns-asked"] = Case(local.asked, local.packets())
    found["host-header"] = Case(local.host, (b"boot.example.org:8080", b"[2001:db8::1]:80", b"192.0.2.1"))
    found["worker-messages"] = Case(work.messages, work.said())
    for name in ("root", "targets", "stable-x86_64"):
        seed = publishing.next_version(files[f"1.{name}.json"])
        found[f"carried-{name}"] = Case(publishing.carried(name, files), (seed,))
    found["journal"] = Case(publishing.left_over, (publishing.ORDER,))
    found["pinned"] = Case(publishing.remembered, (publishing.MEMORY,))
    found["module-shape"] = Case(work.shape, work.modules())
    found["module"] = Case(work.module, work.modules())
    return found
