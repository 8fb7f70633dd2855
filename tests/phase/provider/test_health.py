"""Whatever makes a boot fail is in /health, /status and /metrics, with its part and its reason."""

import asyncio
import contextlib
import errno
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest

from phase.beneath import Beneath
from phase.errors import PhaseError
from phase.provider import access, background, server, store
from phase.provider.announce import Options
from phase.provider.app import STORE, make_app
from phase.provider.check import BlobCheck
from phase.provider.health import Part
from phase.provider.metrics import Metrics
from phase.provider.status import Advertisement
from phase.provider.store import Store
from phase.provider.together import Board, Together
from phase.release.repository import Repository
from phase.trust import Floor
from tests.phase.provider.conftest import FILES, KEYS, Publish
from tests.phase.provider.scarce import Scarce

DAY = 86_400.0


#: What a case holds while it runs.
_held: list[socket.socket] = []


class Bench(NamedTuple):
    """What a case may break."""

    directory: Path
    monkeypatch: pytest.MonkeyPatch
    #: How the provider is started.
    options: dict[str, Any]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(store, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(server, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(server, "READ_SECONDS", 0.01)
    monkeypatch.setattr(background, "RETRY_SECONDS", (0.02, 0.1))
    monkeypatch.setattr(access._Place, "writer", None)
    yield
    access._Place.writer = None
    while _held:
        _held.pop().close()


@pytest.fixture
def bench(publish: Publish, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(publish(), monkeypatch, {"mdns": False})


def _later(days: float) -> Callable[[Bench], None]:
    """The clock says that so many days have passed."""

    def set_clock(bench: Bench) -> None:
        moment = time.time() + days * DAY
        bench.monkeypatch.setattr("phase.provider.store.time.time", lambda: moment)

    return set_clock


def _blob(change: Callable[[Path], None]) -> Callable[[Bench], None]:
    def broken(bench: Bench) -> None:
        path = min((bench.directory / "blobs/sha256").iterdir())
        path.chmod(0o644)
        change(path)

    return broken


def _lead_out(path: Path) -> None:
    outside = path.parents[3] / "outside"
    path.rename(outside)
    path.symlink_to(outside)


def _damage(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])


def _unreadable(bench: Bench) -> None:
    (bench.directory / "metadata/1.snapshot.json").unlink()
    os.utime(bench.directory / "metadata/timestamp.json")


def _upkeep(bench: Bench) -> None:
    def fails() -> None:
        raise PhaseError("no kernel in there")

    bench.options.update(upkeep=fails, every=0.02)


def _no_mdns(bench: Bench) -> None:
    async def advertise(store: Store, told: Any, **named: Any) -> None:
        told.tried("registration failed")
        await asyncio.Event().wait()

    bench.options["mdns"] = True
    bench.monkeypatch.setattr("phase.provider.advertise.advertise", advertise)


def _no_dht(bench: Bench) -> None:
    """Somebody else has the port."""
    taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    _held.append(taken)
    listener = socket.create_server(("127.0.0.1", 0))
    taken.bind(listener.getsockname())
    bench.options.update(dht=Options(), listeners=[listener])


def _worker(bench: Bench) -> None:
    board = Board(2)
    board.started(0)
    board.ended(1, "by signal 9")
    bench.options["row"] = board.row(0)


def _descriptors(bench: Bench) -> None:
    scarce = Scarce(socket.create_server(("127.0.0.1", 0)), errno.EMFILE)
    scarce.refuse = 1
    bench.options["listeners"] = [scarce]


def _log(bench: Bench) -> None:
    access.log_to("/dev/full")


#: Everything that can make a boot fail and that a provider can know of.
CASES: dict[str, tuple[Part, str, Callable[[Bench], None]]] = {
    "a release that cannot be read": (Part.REPOSITORY, "1.snapshot.json is missing", _unreadable),
    "the timestamp has expired": (Part.EXPIRY, "timestamp", _later(8)),
    "the snapshot has expired": (Part.EXPIRY, "snapshot", _later(31)),
    "the release has expired": (Part.EXPIRY, "stable-x86_64", _later(181)),
    "the targets have expired": (Part.EXPIRY, "targets", _later(366)),
    "the root has expired": (Part.EXPIRY, "root", _later(731)),
    "the clock was never set": (Part.CLOCK, "clock", _later(-time.time() / DAY)),
    "a blob is missing": (Part.BLOBS, "is missing: No such file", _blob(Path.unlink)),
    "a blob is cut off": (Part.BLOBS, "has 5 bytes", _blob(lambda path: os.truncate(path, 5))),
    "a blob is damaged": (Part.BLOBS, "another hash", _blob(_damage)),
    "a blob leads out": (Part.BLOBS, "a link leads out", _blob(_lead_out)),
    "upkeep fails": (Part.TASKS, "upkeep failed", _upkeep),
    "not found by mDNS": (Part.MDNS, "registration failed", _no_mdns),
    "not found by the DHT": (Part.DHT, "", _no_dht),
    "a worker is away": (Part.WORKERS, "worker 1 ended by signal 9", _worker),
    "no descriptors left": (Part.DESCRIPTORS, "Too many open files", _descriptors),
    "the log is lost": (Part.LOG, "No space left", _log),
}
#: What is broken before the provider starts, and so keeps it from serving at all, is broken afterwards.
_AFTER = {"a release that cannot be read"}


@asynccontextmanager
async def serving(bench: Bench) -> AsyncIterator[str]:
    stop = asyncio.Event()
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    options = {"bind": "127.0.0.1", "port": 0, "drain": 1.0, **bench.options}
    task = asyncio.ensure_future(server.serve(bench.directory, ready=port.set_result, stop=stop, **options))
    both: list[asyncio.Future[Any]] = [task, port]
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    try:
        yield f"http://127.0.0.1:{await port}"
    finally:
        stop.set()
        await task


def test_every_part_has_a_case() -> None:
    assert {part for part, _, _ in CASES.values()} == set(Part)


@pytest.mark.parametrize("case", list(CASES))
async def test_expired_and_unnoticed(bench: Bench, case: str) -> None:
    part, reason, breaks = CASES[case]
    if case not in _AFTER:
        breaks(bench)
    async with serving(bench) as url, aiohttp.ClientSession() as session, asyncio.timeout(20):

        async def get(path: str) -> tuple[int, Any]:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{url}{path}") as answer:
                        text = path == "/metrics"
                        return answer.status, await (
                            answer.text() if text else answer.json(content_type=None)
                        )

        def is_there(problems: list[dict[str, str]]) -> bool:
            return any(one["part"] == part and reason in one["text"] for one in problems)

        if case in _AFTER:
            breaks(bench)
        while True:
            _, health = await get("/health")
            if is_there(health.get("problems", [])):
                break
            await asyncio.sleep(0.02)
        assert health["status"] == "degraded"
        assert (await get("/health"))[0] == 200, "it serves what it can"
        assert (await get("/health?strict"))[0] == 503
        assert is_there((await get("/status"))[1]["problems"])
        metrics = (await get("/metrics"))[1]
        assert f'phase_provider_degraded{{part="{part}"}} 1\n' in metrics
        if part is Part.EXPIRY:
            assert f'phase_provider_expires_seconds{{role="{reason}"}} -' in metrics


async def test_a_well_provider_says_so_and_when_it_expires(bench: Bench) -> None:
    async with serving(bench) as url, aiohttp.ClientSession() as session, asyncio.timeout(20):
        text = ""
        while 'blobs{state="verified"} 3' not in text:
            async with session.get(f"{url}/metrics") as answer:
                text = await answer.text()
        for part in Part:
            assert f'phase_provider_degraded{{part="{part}"}} 0\n' in text
        async with session.get(f"{url}/health?strict") as answer:
            assert answer.status == 200
            well = {"status": "ok", "problem": "", "problems": [], "warnings": []}
            assert await answer.json() == well
        async with session.get(f"{url}/status") as answer:
            found = (await answer.json())["expires_seconds"]
    assert set(found) == {"root", "timestamp", "snapshot", "targets", "stable-x86_64"}
    assert 6.9 * DAY < found["timestamp"] < 7 * DAY
    assert 729 * DAY < found["root"] < 730 * DAY


async def test_what_expires_soon_is_warned_of_in_time(bench: Bench) -> None:
    """A quarter of its time is left: nothing is wrong yet, and a load balancer sends nobody away."""
    _later(6)(bench)
    async with serving(bench) as url, aiohttp.ClientSession() as session, asyncio.timeout(20):
        async with session.get(f"{url}/health?strict") as answer:
            health = await answer.json()
        async with session.get(f"{url}/metrics") as answer:
            metrics = await answer.text()
    assert (answer.status, health["status"]) == (200, "ok")
    (warning,) = health["warnings"]
    assert warning["part"] == "expiry"
    assert warning["text"].startswith("the signature of timestamp ends in 1.0 days")
    renew_by = {
        line.split()[0]: float(line.split()[1])
        for line in metrics.splitlines()
        if line.startswith("phase_provider_renew")
    }
    assert renew_by['phase_provider_renew_seconds{role="timestamp"}'] == pytest.approx(-0.75 * DAY, abs=60)
    assert renew_by['phase_provider_renew_seconds{role="targets"}'] > 200 * DAY


@pytest.mark.parametrize("good", ["the same again", "a new one"])
def test_a_broken_release_then_a_good_one_is_well_again(
    publish: Publish, monkeypatch: pytest.MonkeyPatch, good: str
) -> None:
    monkeypatch.setattr(store, "LOOK_SECONDS", 0.0)
    directory = publish()
    serves = Store(directory)
    path = directory / "metadata/timestamp.json"
    kept = path.stat(), path.rename(path.with_suffix(".kept"))
    path.write_bytes(b"{")
    assert [problem.part for problem in serves.problems()] == [Part.REPOSITORY]
    if good == "the same again":
        kept[1].rename(path)
    else:
        kept[1].rename(path)
        publish("2.0.0", kernel=b"another", initramfs=b"i")
    # At the first look, not at the one after.
    assert serves.problems() == []
    assert serves.problem == ""


async def test_a_blob_that_comes_back_is_well_again(publish: Publish) -> None:
    directory = publish()
    metrics = Metrics()
    check = BlobCheck(Store(directory), metrics)

    async def looked() -> list[str]:
        await check.look()
        for _ in range(10):
            await check.read_some()
        return [problem.text for problem in check.problems()]

    assert await looked() == []
    assert metrics.blobs == {"named": 3, "missing": 0, "damaged": 0, "verified": 3}
    path = max((directory / "blobs/sha256").iterdir())
    good = path.read_bytes()
    path.chmod(0o644)
    _damage(path)
    assert await looked() == [f"blob {path.name} is damaged: its bytes have another hash"]
    assert (metrics.blobs["damaged"], metrics.blobs["verified"]) == (1, 3 - 1)
    path.unlink()
    assert await looked() == [f"blob {path.name} is missing: No such file or directory"]
    path.write_bytes(good)
    assert await looked() == []
    # Damage that leaves size and time alone is found at the next reading.
    facts = path.stat()
    _damage(path)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert await looked() == []
    check._clock = lambda: time.monotonic() + 2 * DAY
    assert len(await looked()) == 1


async def test_no_blob_stays_open_while_it_is_read_slowly(publish: Publish) -> None:
    """What stays open when the provider ends is a warning, and an error in these tests."""
    directory = publish(kernel=bytes(3 << 20), initramfs=b"i")

    def held() -> list[str]:
        links = (os.path.join("/proc/self/fd", each) for each in os.listdir("/proc/self/fd"))
        return [to for link in links if str(directory) in (to := os.path.realpath(link))]

    metrics = Metrics()
    check = BlobCheck(Store(directory), metrics)
    await check.look()
    for _ in range(9):
        await check.read_some()
        assert not held()
    assert metrics.blobs["verified"] == 2


async def test_no_descriptor_to_look_at_a_blob_does_not_make_it_missing(
    publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = BlobCheck(Store(publish()), Metrics())
    await check.look()
    number = errno.EMFILE

    def refuse(_: object) -> os.stat_result:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Beneath, "stat", refuse)
    # The supervisor shows it as this task's failure.
    with pytest.raises(OSError, match="Too many open files"):
        await check.look()
    assert check.problems() == []
    number = errno.EACCES
    await check.look()
    assert check.problems()[0].text.endswith("cannot be read: Permission denied")


async def test_many_missing_blobs_are_counted(publish: Publish) -> None:
    directory = publish(**{f"dtb-{n}": b"dtb %d" % n for n in range(9)}, **FILES)
    for path in (directory / "blobs/sha256").iterdir():
        path.unlink()
    check = BlobCheck(Store(directory), Metrics())
    await check.look()
    assert [problem.text for problem in check.problems()][3:] == [
        "9 other blobs are missing or damaged, too"
    ]


def test_links_served_from_a_repository_lead_nowhere_else(publish: Publish, tmp_path: Path) -> None:
    directory = publish()
    secret = tmp_path / "secret.json"
    secret.write_text('{"signed": {}}')
    metadata = directory / "metadata"
    (metadata / "out.json").symlink_to(secret)
    (metadata / "in.json").symlink_to("1.root.json")
    (metadata / "passwd.json").write_text("root:x:0:0\n")
    os.mkfifo(metadata / "pipe.json")
    (metadata / "device.json").symlink_to("/dev/zero")
    found = Store(directory).current().metadata
    assert {"out.json", "passwd.json", "pipe.json", "device.json"}.isdisjoint(found)
    assert found["in.json"] == found["1.root.json"]
    # What is needed is named.
    release = (metadata / "1.stable-x86_64.json").read_bytes()
    (metadata / "1.stable-x86_64.json").unlink()
    (metadata / "1.stable-x86_64.json").symlink_to(secret)
    with pytest.raises(PhaseError, match=r"1.stable-x86_64.json cannot be read: a link leads out of"):
        Store(directory)
    # The directory itself may be a link, the one within it may not lead out.
    (metadata / "1.stable-x86_64.json").unlink()
    (metadata / "1.stable-x86_64.json").write_bytes(release)
    (tmp_path / "link").symlink_to(directory)
    assert Store(tmp_path / "link").current().releases
    metadata.rename(tmp_path / "moved")
    metadata.symlink_to(tmp_path / "moved")
    with pytest.raises(PhaseError, match=r"metadata cannot be read: a link leads out of"):
        Store(directory)


def test_what_was_published_thousands_of_times_can_be_read(publish: Publish) -> None:
    directory = publish()
    metadata = directory / "metadata"
    data = (metadata / "1.snapshot.json").read_bytes()
    for number in range(2, 3000):
        (metadata / f"{number}.snapshot.json").write_bytes(data)
        (metadata / f"{number}.stable-x86_64.json").hardlink_to(metadata / "1.stable-x86_64.json")
    repository = Repository.open(directory, keys=KEYS, floors=[Floor(snapshot=3000)], restore=True)
    repository.renew(["targets"])
    repository.publish()
    found = Store(directory).current()
    assert len([name for name in found.metadata if "snapshot" in name]) == 9
    assert "3001.snapshot.json" in found.metadata
    assert found.releases


async def test_a_blob_is_served_by_the_hash_that_is_its_name(
    publish: Publish, aiohttp_client: Callable[..., Any]
) -> None:
    """One that is found to have another is not, until it has changed: a client would take us for a liar."""
    directory = publish()
    path = max((directory / "blobs/sha256").iterdir())
    app = make_app(directory)
    client = await aiohttp_client(app)
    check = BlobCheck(app[STORE], Metrics())

    async def answer() -> tuple[int, str]:
        await check.look()
        for _ in range(10):
            await check.read_some()
        found = await client.get(f"/blobs/sha256/{path.name}")
        return found.status, (await found.json(content_type=None))["detail"] if found.status != 200 else ""

    assert await answer() == (200, "")
    path.chmod(0o644)
    good = path.read_bytes()
    _damage(path)
    assert await answer() == (500, "the stored file is damaged: its bytes have another hash")
    path.write_bytes(good)
    assert await answer() == (200, "")


def test_every_worker_hears_which_blobs_are_damaged(publish: Publish) -> None:
    stores = [Store(publish()) for _ in range(3)]
    board = Board(3)
    all_ = [
        Together(board.row(number), Metrics(), Advertisement(), store) for number, store in enumerate(stores)
    ]
    stores[0].damaged["ab" * 32] = (1, 2, 3)
    for each in (*all_, *all_):
        each.tell()
    assert [found.damaged for found in stores] == [{"ab" * 32: (1, 2, 3)}] * 3
    del stores[0].damaged["ab" * 32]
    for each in (*all_, *all_):
        each.tell()
    assert [found.damaged for found in stores] == [{}] * 3
