"""Among many providers the newest release counts, and nobody's silence costs much."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from threading import current_thread
from typing import Any, ClassVar

import pytest

from fixtures.hostile.provider import Provider, silent
from fixtures.hostile.server import Server
from fixtures.hostile.world import ARCH, CHANNEL, KEYS, World
from phase import trust
from phase.errors import PhaseError
from phase.fetch import Client, ExhaustedError
from phase.fetch import release as releases
from phase.fetch.release import OFFER_SECONDS, Proven, refresh_from
from phase.fetch.way import DIRECT, Way
from phase.release.keys import ReleaseKeys
from phase.release.repository import Repository


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def servers() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def honest(world: World) -> Provider:
    return Provider(world)


def old(world: World) -> Provider:
    """What every machine serves that was booted before the newest release came out."""
    provider = Provider(world)
    provider.files.clear()
    provider.files.update(world.before)
    return provider


def refresh(world: World, servers: ExitStack, *providers: Provider, **more: Any) -> tuple[int, Proven]:
    """Refresh from these; returns the position of who proved it too."""
    urls = [servers.enter_context(Server(provider.answer)).url for provider in providers]
    found = refresh_from(
        urls,
        world.root,
        channel=CHANNEL,
        arch=ARCH,
        now=datetime.now(UTC),
        deadline=time.monotonic() + 30,
        **more,
    )
    return urls.index(found.url), found


def test_the_newest_of_many_counts(world: World, servers: ExitStack) -> None:
    said: list[tuple[str, PhaseError]] = []
    position, found = refresh(
        world, servers, old(world), old(world), honest(world), refused=lambda *why: said.append(why)
    )
    assert (position, found.release.manifest.release) == (2, "1.1.0")
    assert found.release.floor.timestamp == 2
    assert not said


def test_an_old_one_alone_is_within_its_promise(world: World, servers: ExitStack) -> None:
    assert refresh(world, servers, old(world), old(world))[1].release.manifest.release == "1.0.0"


def test_one_provider_is_asked_for_nothing_twice(world: World, servers: ExitStack) -> None:
    first, second = (servers.enter_context(Server(honest(world).answer)) for _ in range(2))
    arguments: dict[str, Any] = {"channel": CHANNEL, "arch": ARCH, "now": datetime.now(UTC)}
    refresh_from([first.url], world.root, deadline=time.monotonic() + 30, **arguments)
    assert len(first.asked) == len(set(first.asked)) == 5
    # One that has the same release is asked for no more than the two files that say so.
    refresh_from([first.url, second.url], world.root, deadline=time.monotonic() + 30, **arguments)
    assert [asked.path for asked in second.asked] == ["/metadata/2.root.json", "/metadata/timestamp.json"]


def test_who_offers_something_newer_and_has_it_not_changes_nothing(world: World, servers: ExitStack) -> None:
    liar = honest(world)
    del liar.files[liar.metadata.path("snapshot")]
    forger = old(world)
    forger.metadata.forge("timestamp", lambda signed: signed.update(version=99), [])
    said: list[str] = []
    found = refresh(world, servers, old(world), liar, forger, refused=lambda url, why: said.append(str(why)))
    assert found[1].release.manifest.release == "1.0.0"
    assert len(said) == 1
    assert "2.snapshot.json" in said[0]
    position, found_ = refresh(world, servers, old(world), liar, forger, honest(world))
    assert (position, found_.release.manifest.release) == (3, "1.1.0")


def test_a_silent_one_costs_a_moment(world: World, servers: ExitStack) -> None:
    mute = honest(world)
    mute.on("/", silent)
    started = time.monotonic()
    position, found = refresh(world, servers, old(world), mute, mute, mute, honest(world))
    assert time.monotonic() - started < OFFER_SECONDS + 3
    assert (position, found.release.manifest.release) == (4, "1.1.0")


def test_of_several_newer_ones_the_newest_counts(world: World, servers: ExitStack, tmp_path: Path) -> None:
    repository = Repository.create(tmp_path / "r", keys=KEYS)
    (tmp_path / "kernel").write_bytes(b"kernel")
    providers = []
    for release in ("1", "2", "3", "4"):
        repository.add(CHANNEL, ARCH, {"kernel": tmp_path / "kernel"}, release=release)
        repository.publish()
        provider = honest(world)
        provider.files = {f"/metadata/{name}": data for name, data in repository.metadata().items()}
        providers.append(provider)
    # The newest has the address that is first in the alphabet: its place there must not decide.
    answers: dict[int, Provider] = {}
    started = [
        servers.enter_context(Server(lambda *asked, n=n: answers[n].answer(*asked))) for n in range(4)
    ]
    for place, (n, _) in enumerate(sorted(enumerate(started), key=lambda pair: pair[1].url)):
        answers[n] = providers[(3, 0, 1, 2)[place]]
    by_release = {id(answers[n]): server.url for n, server in enumerate(started)}
    urls = [by_release[id(providers[n])] for n in (0, 2, 3, 1)]
    root = providers[0].files["/metadata/1.root.json"]
    found = refresh_from(
        urls, root, channel=CHANNEL, arch=ARCH, now=datetime.now(UTC), deadline=time.monotonic() + 30
    )
    assert (found.url, found.release.manifest.release) == (urls[2], "4")


def test_new_keys_are_heard_of_from_anybody(world: World, servers: ExitStack, tmp_path: Path) -> None:
    """A stolen timestamp key proves nothing beside one who knows the roots that revoke it, two of them."""
    repository = Repository.create(tmp_path / "r", keys=KEYS)
    for name in ("kernel", "initramfs"):
        (tmp_path / name).write_bytes(name.encode())
    files = {name: tmp_path / name for name in ("kernel", "initramfs")}
    repository.add(CHANNEL, ARCH, files, release="1")
    repository.publish()
    before = honest(world)
    before.files = {f"/metadata/{name}": data for name, data in repository.metadata().items()}
    before.metadata.files = before.files
    before.metadata.forge("timestamp", lambda signed: signed.update(version=50))
    now = honest(world)
    for seed in ("fresh", "fresher"):
        repository.rotate(ReleaseKeys.from_seed(seed))
        repository.publish()
    now.files = {f"/metadata/{path.name}": path.read_bytes() for path in (tmp_path / "r/metadata").iterdir()}
    root = now.files["/metadata/1.root.json"]
    with ExitStack() as stack:
        urls = [stack.enter_context(Server(each.answer)).url for each in (before, now)]
        found = refresh_from(
            urls, root, channel=CHANNEL, arch=ARCH, now=datetime.now(UTC), deadline=time.monotonic() + 30
        )
    assert found.url == urls[1]
    assert found.release.floor.root == 3


def test_nobody_is_an_error() -> None:
    with pytest.raises(ExhaustedError, match="there is no provider to ask"):
        refresh_from([], b"", channel=CHANNEL, arch=ARCH, now=datetime.now(UTC), deadline=time.monotonic())


@pytest.mark.parametrize("file", ["2.root.json", "timestamp.json"])
@pytest.mark.parametrize(
    "text",
    [b'"' + b'\\"' * 8000, b"[" * 16_000, b"[1" + b",1" * 8000 + b"]"],
    ids=["quotes", "brackets", "numbers"],
)
def test_slow_json_does_not_keep_an_honest_provider_from_being_asked(
    world: World, servers: ExitStack, file: str, text: bytes
) -> None:
    slow = honest(world)
    slow.files[f"/metadata/{file}"] = text if file == "timestamp.json" else text * 30
    began = time.process_time()
    position, found = refresh(world, servers, slow, slow, slow, slow, honest(world))
    assert (position, found.release.manifest.release) == (4, "1.1.0")
    assert time.process_time() - began < 2


def test_what_is_kept_is_not_asked_for_again(world: World, servers: ExitStack) -> None:
    _, kept = refresh(world, servers, honest(world))
    server = servers.enter_context(Server(honest(world).answer))
    found = refresh_from(
        [server.url],
        world.root,
        channel=CHANNEL,
        arch=ARCH,
        now=datetime.now(UTC),
        deadline=time.monotonic() + 30,
        cached=kept.release.metadata,
    )
    assert [asked.path for asked in server.asked] == ["/metadata/2.root.json", "/metadata/timestamp.json"]
    assert found.release.manifest == kept.release.manifest


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_who_was_refused_says_more_than_who_did_not_answer(
    world: World, servers: ExitStack, order: list[int]
) -> None:
    liar = honest(world)
    liar.metadata.forge("timestamp", lambda signed: signed.update(version=99), [])
    url = servers.enter_context(Server(liar.answer)).url
    urls = [url, "http://127.0.0.1:9"]
    with pytest.raises(trust.TrustError, match=r"timestamp\.json is signed by 0 of"):
        refresh_from(
            [urls[index] for index in order],
            world.root,
            channel=CHANNEL,
            arch=ARCH,
            now=datetime.now(UTC),
            deadline=time.monotonic() + 30,
        )


class Timed(Client):
    """Remembers what time each provider got, seconds."""

    given: ClassVar[list[float]] = []
    #: Whether the process waits for each of those who ask, when it ends.
    waited_for: ClassVar[list[bool]] = []

    def __init__(self, urls: Sequence[str], *, timeout: float, way: Way = DIRECT) -> None:
        self.waited_for.append(not current_thread().daemon)
        self.given.append(timeout)
        super().__init__(urls, timeout=timeout, way=way)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    monkeypatch.setattr(Timed, "given", [])
    monkeypatch.setattr(Timed, "waited_for", [])
    monkeypatch.setattr(releases, "Client", Timed)
    return Timed.given


def nobody(count: int) -> list[str]:
    """Addresses at which nothing listens."""
    return [f"http://127.0.0.{number + 1}:9" for number in range(count)]


@pytest.mark.parametrize(
    ("seconds", "shares"), [(60, [15, 20, 30]), (1.6, [1, 1, 0.9]), (0.7, [0.7] * 3), (-5, [0] * 3)]
)
def test_each_provider_gets_its_share_of_the_time_left(
    given: list[float], seconds: float, shares: list[float]
) -> None:
    said: list[str] = []
    with pytest.raises(PhaseError):
        refresh_from(
            [*nobody(3), nobody(1)[0]],
            b"",
            channel=CHANNEL,
            arch=ARCH,
            now=datetime.now(UTC),
            deadline=time.monotonic() + seconds,
            refused=lambda url, why: said.append(url),
        )
    assert given == pytest.approx(shares, abs=0.4 if seconds < 2 else 5)
    assert max(given) <= seconds or seconds < 0
    assert said == nobody(3)


def test_only_so_many_providers_are_asked() -> None:
    said: list[str] = []
    with pytest.raises(PhaseError):
        refresh_from(
            nobody(17),
            b"",
            channel=CHANNEL,
            arch=ARCH,
            now=datetime.now(UTC),
            deadline=time.monotonic(),
            refused=lambda url, why: said.append(url),
        )
    assert said == nobody(16)


@pytest.mark.parametrize(("seconds", "least", "most"), [(30, 1.0, OFFER_SECONDS), (1.6, 0.0, 1.6)])
def test_for_offers_there_is_a_moment_and_no_more_than_is_left(
    world: World, servers: ExitStack, given: list[float], seconds: float, least: float, most: float
) -> None:
    urls = [servers.enter_context(Server(honest(world).answer)).url for _ in range(3)]
    refresh_from(
        urls,
        world.root,
        channel=CHANNEL,
        arch=ARCH,
        now=datetime.now(UTC),
        deadline=time.monotonic() + seconds,
    )
    assert len(given) == 3
    assert all(least <= offered <= most for offered in given[1:])
    assert Timed.waited_for == [True, False, False]


def test_what_is_remembered_binds_everybody(world: World, servers: ExitStack) -> None:
    _, newest = refresh(world, servers, honest(world))
    for more in ({"floor": newest.release.floor}, {"others": [newest.release.floor]}):
        with pytest.raises(trust.RollbackError):
            refresh(world, servers, old(world), **more)
        assert refresh(world, servers, old(world), honest(world), **more)[0] == 1


def test_a_policy_binds_everybody(world: World, servers: ExitStack) -> None:
    with pytest.raises(PhaseError, match="timestamp"):
        refresh(world, servers, honest(world), policy=trust.Policy(max_timestamp=10))


def test_a_newer_one_is_asked_only_for_what_is_not_known_yet(world: World, servers: ExitStack) -> None:
    server = servers.enter_context(Server(honest(world).answer))
    first = servers.enter_context(Server(old(world).answer))
    found = refresh_from(
        [first.url, server.url],
        world.root,
        channel=CHANNEL,
        arch=ARCH,
        now=datetime.now(UTC),
        deadline=time.monotonic() + 30,
    )
    assert found.url == server.url
    asked = [each.path.removeprefix("/metadata/") for each in server.asked]
    assert asked[:4] == ["2.root.json", "timestamp.json"] * 2


@pytest.mark.parametrize(("grace", "winner"), [(0, 0), (10**9, 1)])
def test_an_offer_that_has_expired_counts_as_far_as_the_policy_goes(
    world: World, servers: ExitStack, grace: int, winner: int
) -> None:
    late = honest(world)
    late.metadata.forge("timestamp", lambda signed: signed.update(expires="2020-01-01T00:00:00Z"))
    position, found = refresh(world, servers, old(world), late, policy=trust.Policy(grace=grace))
    assert position == winner
    assert found.release.manifest.release == ("1.0.0", "1.1.0")[winner]


def test_an_offer_goes_back_behind_nothing_that_is_proven(world: World, servers: ExitStack) -> None:
    """With a stolen timestamp key somebody calls an old release the newest."""
    thief = old(world)
    thief.metadata.forge("timestamp", lambda signed: signed.update(version=9))
    said: list[PhaseError] = []
    position, found = refresh(
        world, servers, honest(world), thief, refused=lambda url, why: said.append(why)
    )
    assert (position, found.release.manifest.release) == (0, "1.1.0")
    assert [type(why) for why in said] == [trust.RollbackError]
