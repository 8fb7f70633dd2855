"""A mirror: whole and verified, or as it was before."""

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fixtures.hostile.provider import Provider, send
from fixtures.hostile.server import Asked, Server
from fixtures.hostile.world import ARCH, CHANNEL, Metadata, Signed, World
from phase import discovery
from phase import files as files_module
from phase.discovery import DiscoveryError
from phase.errors import PhaseError
from phase.mirror.mirror import Mirror, MirrorError, found, named
from phase.provider import catalog
from phase.trust import RollbackError

OTHER = CHANNEL, "arm64"
OWN = CHANNEL, ARCH
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def provider(world: World) -> Provider:
    return Provider(world)


@pytest.fixture
def mirror(world: World, provider: Provider, tmp_path: Path) -> Iterator[Callable[..., Mirror]]:
    """A mirror of the provider, or of some of it."""
    with Server(provider.answer) as server:

        def make(*names: tuple[str, str]) -> Mirror:
            return Mirror(
                tmp_path / "mirror",
                world.root,
                names or (OWN,),
                everything=not names,
                providers=named([server.url]),
                tell=lambda _: None,
            )

        yield make


def files(mirror: Mirror) -> Files:
    """What can be asked for, by path; not what the mirror notes for itself."""
    return {
        f"/{path.relative_to(mirror.directory)}": path.read_bytes()
        for place in ("metadata", "blobs/sha256")
        for path in (mirror.directory / place).iterdir()
    }


def offered(mirror: Mirror) -> dict[tuple[str, str], str]:
    return {name: each.release for name, each in catalog.load(mirror.directory).releases.items()}


def test_everything_is_there_as_it_was_published(mirror: Callable[..., Mirror], world: World) -> None:
    made = mirror()
    made.round()
    assert offered(made) == {OWN: "1.1.0", OTHER: "1.1.0"}
    there = files(made)
    assert there.items() <= world.now.items()
    assert {path for path in there if path.startswith("/blobs/")} == {
        path for path in world.now if path.startswith("/blobs/") and path not in world.before
    }


def test_only_what_was_asked_for(mirror: Callable[..., Mirror]) -> None:
    made = mirror(OTHER)
    made.round()
    assert offered(made) == {OTHER: "1.1.0"}


def test_a_release_beside_the_own_one_is_added(mirror: Callable[..., Mirror]) -> None:
    """As in a system that has booted one: the timestamp is the same, and more is served under it."""
    mirror(OWN).round()
    made = mirror(OWN, OTHER)
    made.round()
    assert offered(made) == {OWN: "1.1.0", OTHER: "1.1.0"}


def test_a_newer_release_replaces_the_older_one(
    mirror: Callable[..., Mirror], world: World, provider: Provider
) -> None:
    provider.files = dict(world.before)
    made = mirror()
    made.round()
    assert offered(made) == {OWN: "1.0.0", OTHER: "1.0.0"}
    provider.files = dict(world.now)
    made.round()
    assert offered(made) == {OWN: "1.1.0", OTHER: "1.1.0"}


def test_a_round_without_news_writes_nothing(mirror: Callable[..., Mirror]) -> None:
    made = mirror()
    made.round()
    timestamp = made.directory / "metadata/timestamp.json"
    before = timestamp.stat().st_ino
    made.round()
    assert timestamp.stat().st_ino == before


def test_what_does_not_come_whole_changes_nothing(
    mirror: Callable[..., Mirror], world: World, provider: Provider
) -> None:
    provider.files = dict(world.before)
    made = mirror()
    made.round()
    before = files(made)
    provider.files = dict(world.now)
    del provider.files[provider.blob("initramfs")]
    with pytest.raises(MirrorError, match="initramfs"):
        made.round()
    after = files(made)
    # The kernel of the new release has come, and nothing says so yet.
    assert {path: after[path] for path in before} == before
    assert {path for path in after if path.startswith("/metadata/")} == {
        path for path in before if path.startswith("/metadata/")
    }
    assert offered(made) == {OWN: "1.0.0", OTHER: "1.0.0"}


def test_a_release_that_was_there_is_not_given_up_for_a_newer_one(
    mirror: Callable[..., Mirror], world: World, provider: Provider
) -> None:
    """The new timestamp would lead to one release only; the old one leads to both."""
    provider.files = dict(world.before)
    made = mirror()
    made.round()
    provider.files = dict(world.now)
    del provider.files["/metadata/2.stable-arm64.json"]
    with pytest.raises(MirrorError, match="stable/arm64: "):
        made.round()
    assert offered(made) == {OWN: "1.0.0", OTHER: "1.0.0"}


def test_a_release_that_is_withdrawn_does_not_stop_the_others(
    mirror: Callable[..., Mirror], world: World, provider: Provider
) -> None:
    """Their timestamp would expire, and no machine take anything from here."""
    provider.files = dict(world.before)
    made = mirror(OWN, OTHER)
    made.round()
    provider.files = dict(world.now)

    def withdraw(signed: Signed) -> None:
        roles = signed["delegations"]["roles"]
        roles[:] = [role for role in roles if role["name"] != "stable-arm64"]

    Metadata(provider.files).forge("targets", withdraw)
    with pytest.raises(MirrorError, match="stable/arm64: this repository has no release"):
        made.round()
    assert offered(made) == {OWN: "1.1.0"}


def test_wrong_bytes_get_no_name(mirror: Callable[..., Mirror], provider: Provider) -> None:
    path = provider.blob("kernel")
    provider.files[path] = bytes(len(provider.files[path]))
    made = mirror()
    with pytest.raises(MirrorError, match="not the signed one"):
        made.round()
    assert not (made.directory / path.lstrip("/")).exists()
    assert not (made.directory / "metadata/timestamp.json").exists()


def test_a_release_that_nobody_has_does_not_stop_the_others(mirror: Callable[..., Mirror]) -> None:
    made = mirror(OWN, ("beta", ARCH), OTHER)
    with pytest.raises(MirrorError, match=f"beta/{ARCH}: this repository has no release") as caught:
        made.round()
    assert "stable" not in str(caught.value).partition(" has no release")[0]
    assert offered(made) == {OWN: "1.1.0", OTHER: "1.1.0"}


@pytest.mark.parametrize("remembers", [True, False])
def test_an_older_state_is_refused(
    mirror: Callable[..., Mirror], world: World, provider: Provider, remembers: bool
) -> None:
    """Also where nothing but the metadata itself tells which state was there."""
    made = mirror()
    made.round()
    if not remembers:
        for floor in made.directory.glob("floor-*.json"):
            floor.unlink()
    provider.files = dict(world.before)
    with pytest.raises(RollbackError):
        made.round()
    assert offered(made) == {OWN: "1.1.0", OTHER: "1.1.0"}


def test_the_timestamp_is_written_last(
    mirror: Callable[..., Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever a reader comes, all that the timestamp leads to is there."""
    written: list[str] = []
    write_at = files_module.write_at

    def write(directory: int, name: str, data: bytes, *, mode: int = 0o644) -> None:
        written.append(name)
        write_at(directory, name, data, mode=mode)

    monkeypatch.setattr(files_module, "write_at", write)
    mirror().round()
    assert written[-1] == "timestamp.json"
    assert len(written) > 5


def test_a_publishers_own_directory_is_left_alone(mirror: Callable[..., Mirror]) -> None:
    made = mirror()
    (made.directory / "staged").mkdir(parents=True)
    with pytest.raises(MirrorError, match="where a publisher signs"):
        made.round()
    assert [path.name for path in made.directory.iterdir()] == ["staged"]


def test_releases_that_no_mirror_has_brought_are_left_alone(
    mirror: Callable[..., Mirror], provider: Provider, world: World
) -> None:
    """A publisher who forgot what the directory is would lose what the next release builds on."""
    made = mirror()
    for path, data in world.before.items():
        file = made.directory / path.removeprefix("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    before = files(made)
    provider.files = dict(world.now)
    with pytest.raises(MirrorError, match="no mirror has put there"):
        made.check()
    with pytest.raises(MirrorError):
        made.round()
    assert files(made) == before
    (made.directory / ".mirror").touch()
    made.round()
    assert files(made) != before


def test_what_is_out_of_use_goes(mirror: Callable[..., Mirror], world: World, provider: Provider) -> None:
    provider.files = dict(world.before)
    made = mirror()
    made.round()
    shutil.copy(made.directory / "metadata/root.json", made.directory / "blobs/sha256" / ("0" * 64))
    provider.files = dict(world.now)
    made.round()
    assert not (made.directory / "blobs/sha256" / ("0" * 64)).exists()


def test_no_provider_is_an_error(world: World, tmp_path: Path) -> None:
    made = Mirror(
        tmp_path / "mirror",
        world.root,
        [OWN],
        everything=True,
        providers=named(["http://127.0.0.1:9"]),
        tell=lambda _: None,
    )
    with pytest.raises(PhaseError, match=r"127\.0\.0\.1:9"):
        made.round()


@pytest.mark.parametrize("everything", [False, True])
def test_the_first_release_may_be_the_withdrawn_one(
    world: World, provider: Provider, tmp_path: Path, everything: bool
) -> None:
    provider.files = dict(world.before)
    with Server(provider.answer) as server:
        made = Mirror(
            tmp_path / "mirror",
            world.root,
            [OWN] if everything else [OWN, OTHER],
            everything=everything,
            providers=named([server.url]),
            tell=lambda _: None,
        )
        made.round()
        provider.files = dict(world.now)

        def withdraw(signed: Signed) -> None:
            roles = signed["delegations"]["roles"]
            roles[:] = [role for role in roles if role["name"] != f"stable-{ARCH}"]

        Metadata(provider.files).forge("targets", withdraw)
        with pytest.raises(MirrorError, match=f"stable/{ARCH}: this repository has no release"):
            made.round()
        assert offered(made) == {OTHER: "1.1.0"}


@pytest.mark.parametrize("damage", [b"", b"another"])
def test_a_file_that_was_whole_and_is_not_is_fetched_again(
    mirror: Callable[..., Mirror], provider: Provider, damage: bytes
) -> None:
    """Not every one is hashed in every round; one of another length, or another file, is."""
    made = mirror()
    made.round()
    path = provider.blob("kernel")
    blob = made.directory / path.lstrip("/")
    content = blob.read_bytes()
    blob.unlink()
    blob.write_bytes(damage or bytes(len(content)))
    made.round()
    assert blob.read_bytes() == content


def test_what_a_directory_remembers_counts_without_its_metadata(
    mirror: Callable[..., Mirror], world: World, provider: Provider
) -> None:
    made = mirror()
    made.round()
    shutil.rmtree(made.directory / "metadata")
    provider.files = dict(world.before)
    with pytest.raises(RollbackError):
        made.round()
    assert not (made.directory / "metadata/timestamp.json").exists()


def test_a_round_that_is_late_does_not_replace_a_newer_release(world: World, tmp_path: Path) -> None:
    """Another process has filled the same directory meanwhile, from a provider that is not behind."""

    def follow(url: str) -> Mirror:
        providers = named([url])
        return Mirror(
            tmp_path / "mirror",
            world.root,
            [OWN],
            everything=False,
            providers=providers,
            tell=lambda _: None,
        )

    ahead, behind = Provider(world), Provider(world)
    behind.files = dict(world.before)
    with Server(ahead.answer) as newer:

        def late(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
            if not (tmp_path / "mirror/metadata/timestamp.json").exists():
                follow(newer.url).round()
            return send(behind.files.get(asked.path), asked, connection)

        behind.on("/blobs/", late)
        with Server(behind.answer) as older, pytest.raises(RollbackError):
            follow(older.url).round()
    there = catalog.load(tmp_path / "mirror").releases
    assert [each.release for each in there.values()] == ["1.1.0"]


def test_a_round_without_news_asks_for_no_more_than_whether_there_is_any(
    world: World, provider: Provider, tmp_path: Path
) -> None:
    with Server(provider.answer) as server:
        made = Mirror(
            tmp_path / "mirror",
            world.root,
            [OWN, OTHER],
            everything=True,
            providers=named([server.url]),
            tell=lambda _: None,
        )
        made.round()
        server.asked.clear()
        made.round()
        assert {each.path for each in server.asked} == {"/metadata/2.root.json", "/metadata/timestamp.json"}


def test_half_a_blob_that_nobody_writes_goes_with_the_next_release(mirror: Callable[..., Mirror]) -> None:
    made = mirror()
    left = made.directory / f"blobs/sha256/.{'0' * 64}.aa.part"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"stale")
    made.round()
    assert not left.exists()


def test_only_what_has_gone_is_fetched_again(
    mirror: Callable[..., Mirror], world: World, provider: Provider
) -> None:
    """What has been seen whole is left alone; what has gone is fetched again, and nothing else."""
    made = mirror()
    made.round()
    blob = made.directory / provider.blob("initramfs").lstrip("/")
    blob.unlink()
    asked: list[str] = []
    provider.on("/blobs/", lambda asked_, connection, stop: send_noted(asked, world, asked_, connection))
    made.round()
    assert asked == [provider.blob("initramfs")]
    assert blob.exists()


def test_another_process_fetches_nothing_that_is_whole(
    mirror: Callable[..., Mirror], world: World, provider: Provider
) -> None:
    """It has seen none of it, and hashes it."""
    mirror().round()
    asked: list[str] = []
    provider.on("/blobs/", lambda asked_, connection, stop: send_noted(asked, world, asked_, connection))
    made = mirror()
    made.round()
    assert asked == []
    blob = made.directory / provider.blob("kernel").lstrip("/")
    assert blob.stat().st_mode & 0o777 == 0o644


def send_noted(noted: list[str], world: World, asked: Asked, connection: socket.socket) -> bool:
    """Answer, and note what was asked for."""
    noted.append(asked.path)
    return send(world.now.get(asked.path), asked, connection)


def test_a_directory_of_its_own_is_not_left_behind_empty(world: World, tmp_path: Path) -> None:
    def follow() -> None:
        Mirror(
            tmp_path / "mirror",
            world.root,
            [OWN],
            everything=False,
            providers=named([]),
            tell=lambda _: None,
        ).round()

    with pytest.raises(PhaseError, match="there is no provider to ask"):
        follow()
    assert not (tmp_path / "mirror").exists()
    (tmp_path / "mirror").mkdir()
    with pytest.raises(PhaseError, match="there is no provider to ask"):
        follow()
    assert (tmp_path / "mirror").exists(), "it was somebody else's"


def test_providers_of_each_release_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were named come first, and none comes twice."""
    here = {OWN: ["http://192.0.2.5:80", "http://192.0.2.1:80"], OTHER: ["http://192.0.2.6:80"]}

    def discover(channel: str, arch: str, **_: object) -> list[Located]:
        return [Located(url) for url in here[channel, arch]]

    monkeypatch.setattr("phase.mirror.mirror.discover", discover)
    find = found(["http://192.0.2.1:80"], mdns=True, dht=())
    assert find([OWN, OTHER]) == ["http://192.0.2.1:80", "http://192.0.2.5:80", "http://192.0.2.6:80"]
    here |= {OWN: [], OTHER: []}
    with pytest.raises(DiscoveryError, match="no provider of stable/x86_64, stable/arm64 was found"):
        found([], mdns=True, dht=())([OWN, OTHER])


class Located(NamedTuple):
    """What a search tells of a provider, as far as a mirror looks."""

    url: str


def test_who_was_named_needs_no_network_to_be_found_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what discovery finds beside them is waited for no longer than it gathers."""
    ends: list[float] = []

    class Nothing:
        problem = "no network"

        def next(self, end: float) -> None:
            ends.append(end - time.monotonic())

    monkeypatch.setattr(discovery, "_ask", lambda *_, **__: Nothing())
    urls = ["http://192.0.2.1:8080", "http://192.0.2.2:8080"]
    assert found(urls, mdns=True, dht=())([OWN, OTHER]) == urls
    assert all(seconds <= 1.0 for seconds in ends)
    with pytest.raises(DiscoveryError, match="no network"):
        found([], mdns=True, dht=())([OWN])
