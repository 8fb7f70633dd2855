"""The directory that `phase fetch` fills, when others write there too."""

import errno
import fcntl
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fixtures.hostile.provider import Provider
from fixtures.hostile.server import Asked, Server
from fixtures.hostile.world import ARCH, CHANNEL, World
from phase.cli import cli
from phase.errors import PhaseError
from phase.fetch import FetchReport
from phase.mirror.output import Output
from phase.release.manifest import Artifact
from phase.trust import RollbackError
from tests.phase.fetch.hostile import CHUNK, describe, good

DATA = random.Random(5).randbytes(6 * CHUNK + 5)  # noqa: S311
BLOB = Artifact(*describe(DATA), path="stable/x86_64/rootfs")
OLD = b"somebody's file, which must stay as it is"
Fetch = Callable[..., Result]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def run(world: World, tmp_path: Path) -> Fetch:
    """Run `phase fetch` from an honest provider, or one made of other files."""

    def run(*, files: dict[str, bytes] | None = None, output: str = "out") -> Result:
        (tmp_path / "root.json").write_bytes(world.root)
        provider = Provider(world)
        if files is not None:
            provider.files = files
        with Server(provider.answer) as server:
            words = ["fetch", "--root", str(tmp_path / "root.json"), "--output", str(tmp_path / output)]
            words += ["--channel", CHANNEL, "--arch", ARCH, "--provider", server.url]
            return CliRunner().invoke(cli, words)

    return run


def fetch(output: Path, url: str) -> FetchReport:
    with Output(output) as place:
        deadline = time.monotonic() + 20
        return place.fetch(BLOB, [url], deadline=deadline, progress=lambda done, all_: None, liars=set())


def blob(output: Path) -> Path:
    return output / "blobs/sha256" / BLOB.sha256


def left(output: Path) -> list[str]:
    return sorted(path.name for path in blob(output).parent.iterdir() if path.name != BLOB.sha256)


@pytest.mark.parametrize("name", ["{}", ".{}.part", ".{}.0011223344556677.part"])
@pytest.mark.parametrize("dangling", [False, True])
def test_no_link_is_followed_nor_written_through(tmp_path: Path, name: str, dangling: bool) -> None:
    victim = tmp_path / "victim"
    if not dangling:
        victim.write_bytes(OLD)
    planted = blob(tmp_path / "out").with_name(name.format(BLOB.sha256))
    planted.parent.mkdir(parents=True)
    planted.symlink_to(victim)
    with Server(good(DATA)) as server:
        fetch(tmp_path / "out", server.url)
    assert victim.exists() is not dangling
    assert dangling or victim.read_bytes() == OLD
    assert not blob(tmp_path / "out").is_symlink()
    assert blob(tmp_path / "out").read_bytes() == DATA


@pytest.mark.parametrize("name", ["{}", ".{}.0011223344556677.part"])
def test_no_hard_link_is_written_through(tmp_path: Path, name: str) -> None:
    """Root's file in a directory of somebody who could not write to it; or a blob that is exported."""
    victim = tmp_path / "victim"
    victim.write_bytes(OLD)
    planted = blob(tmp_path / "out").with_name(name.format(BLOB.sha256))
    planted.parent.mkdir(parents=True)
    planted.hardlink_to(victim)
    with Server(good(DATA)) as server:
        fetch(tmp_path / "out", server.url)
    assert victim.read_bytes() == OLD
    assert blob(tmp_path / "out").read_bytes() == DATA


@pytest.mark.parametrize("place", ["blobs", "blobs/sha256", "metadata", "floor.json", ".lock"])
def test_no_directory_on_the_way_may_be_a_link(run: Fetch, tmp_path: Path, place: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "floor.json").write_bytes(OLD)
    planted = tmp_path / "out" / place
    planted.parent.mkdir(parents=True)
    planted.symlink_to(elsewhere / "floor.json" if place in ("floor.json", ".lock") else elsewhere)
    result = run()
    assert isinstance(result.exception, PhaseError)
    assert str(planted) in str(result.exception)
    assert [path.name for path in elsewhere.iterdir()] == ["floor.json"]
    assert (elsewhere / "floor.json").read_bytes() == OLD


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link to another user")
def test_another_users_link_is_no_output(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    Output(tmp_path / "out").close()  # our own
    os.chown(tmp_path / "out", 12345, 12345, follow_symlinks=False)
    with pytest.raises(PhaseError, match="out cannot be written: it is a link that another user has made"):
        Output(tmp_path / "out")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["{}", ".{}.0011223344556677.part"])
@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
def test_odd_files_are_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    planted = blob(tmp_path / "out").with_name(name.format(BLOB.sha256))
    planted.parent.mkdir(parents=True)
    if kind == "fifo":
        os.mkfifo(planted)
    elif kind == "device":
        planted.symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as listener:
            monkeypatch.chdir(planted.parent)  # such a path may be no longer than 107 bytes
            listener.bind(planted.name)
    with Server(good(DATA)) as server:
        fetch(tmp_path / "out", server.url)
    assert blob(tmp_path / "out").read_bytes() == DATA


def test_a_directory_in_a_blobs_place_is_named(tmp_path: Path) -> None:
    blob(tmp_path / "out").mkdir(parents=True)
    with Server(good(DATA)) as server, pytest.raises(PhaseError, match="cannot be written: Is a directory"):
        fetch(tmp_path / "out", server.url)


def test_what_a_crash_has_left_is_taken_over(tmp_path: Path) -> None:
    part = blob(tmp_path / "out").with_name(f".{BLOB.sha256}.aa.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(DATA[: 4 * CHUNK] + b"torn")
    with Server(good(DATA)) as server:
        assert fetch(tmp_path / "out", server.url).kept == 4 * CHUNK
    assert left(tmp_path / "out") == []


def test_a_damaged_blob_is_repaired_beside_it(tmp_path: Path) -> None:
    """Whoever reads it meanwhile reads the old one to its end; what is right in it is kept."""
    path = blob(tmp_path / "out")
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA[:CHUNK] + bytes(CHUNK) + DATA[2 * CHUNK :] + b"more")
    with path.open("rb") as reader, Server(good(DATA)) as server:
        report = fetch(tmp_path / "out", server.url)
        assert report.kept == len(DATA) - CHUNK
        assert reader.read(2 * CHUNK)[CHUNK:] == bytes(CHUNK)
    assert path.read_bytes() == DATA
    assert left(tmp_path / "out") == []


@pytest.mark.parametrize("there", ["nothing", "the blob", "what they have begun", "what they have named"])
def test_blobs_of_another_role_keep_their_names(tmp_path: Path, there: str) -> None:
    """Two roles name one hash; the chunks of one of them make another file."""
    theirs = random.Random(6).randbytes(len(DATA))  # noqa: S311
    lying = Artifact(*describe(theirs), path="beta/x86_64/rootfs")._replace(sha256=BLOB.sha256)
    place = blob(tmp_path / "out")
    place.parent.mkdir(parents=True)
    if there == "the blob":
        place.write_bytes(DATA)
    elif there == "what they have begun":
        place.with_name(f".{BLOB.sha256}.00.part").write_bytes(theirs)
    elif there == "what they have named":
        place.write_bytes(theirs)
    before = place.read_bytes() if place.exists() else None

    def fetch_theirs() -> None:
        with Output(tmp_path / "out") as output, Server(good(theirs)) as server:
            deadline = time.monotonic() + 20
            output.fetch(lying, [server.url], deadline=deadline, progress=lambda *_: None, liars=set())

    with pytest.raises(PhaseError, match="its signed chunks make a file of sha256"):
        fetch_theirs()
    assert (place.read_bytes() if place.exists() else None) == before
    with Server(good(DATA)) as server:
        fetch(tmp_path / "out", server.url)
    assert place.read_bytes() == DATA
    with pytest.raises(PhaseError, match="its signed chunks make a file of sha256"):
        fetch_theirs()
    assert place.read_bytes() == DATA


def no_locks(*_: object) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


@pytest.mark.parametrize("locks", [True, False])
@pytest.mark.parametrize("begun", [True, False])
def test_two_fetches_into_one_output_both_end_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool, begun: bool
) -> None:
    """Each answer waits until both have asked, so that they write at the same time."""
    if not locks:
        monkeypatch.setattr(fcntl, "flock", no_locks)
    both = threading.Barrier(2, timeout=15)

    def answer(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        both.wait()
        return good(DATA)(asked, connection, stop)

    if begun:
        part = blob(tmp_path / "out").with_name(f".{BLOB.sha256}.aa.part")
        part.parent.mkdir(parents=True)
        part.write_bytes(DATA[:CHUNK])
    ended: list[object] = []

    def one(url: str) -> None:
        try:
            ended.append(fetch(tmp_path / "out", url).length)
        except PhaseError as error:
            ended.append(error)

    with Server(answer) as server:
        threads = [threading.Thread(target=one, args=(server.url,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert ended == [len(DATA)] * 2
    assert sha256(blob(tmp_path / "out").read_bytes()).hexdigest() == BLOB.sha256
    assert left(tmp_path / "out") == []


def test_a_new_part_that_another_takes_over_at_once_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob(tmp_path / "out").parent.mkdir(parents=True)
    lock = fcntl.flock
    taken: list[str] = []

    def busy_at_first(descriptor: int, how: int) -> None:
        if not taken:
            taken.append(os.readlink(f"/proc/self/fd/{descriptor}"))
            raise BlockingIOError
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", busy_at_first)
    with Server(good(DATA)) as server:
        fetch(tmp_path / "out", server.url)
    assert blob(tmp_path / "out").read_bytes() == DATA
    assert left(tmp_path / "out") == [Path(taken[0]).name]


def test_a_part_that_another_took_over_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without locks it may get another name, or the blob's, before it is named here."""
    monkeypatch.setattr(fcntl, "flock", no_locks)
    place = blob(tmp_path / "out").parent
    sync = os.fsync
    for new in (f".{BLOB.sha256}.bb.part", BLOB.sha256):

        def taken_over(descriptor: int, new: str = new) -> None:
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            if path.suffix == ".part":
                path.rename(place / new)
            sync(descriptor)

        with monkeypatch.context() as patch, Server(good(DATA)) as server:
            patch.setattr(os, "fsync", taken_over)
            fetch(tmp_path / "out", server.url)
        assert blob(tmp_path / "out").read_bytes() == DATA
        assert left(tmp_path / "out") == []
        blob(tmp_path / "out").unlink()


def test_parts_of_releases_that_are_past_go_away(run: Fetch, tmp_path: Path) -> None:
    place = tmp_path / "out/blobs/sha256"
    place.mkdir(parents=True)
    (place / f".{'0' * 64}.aa.part").write_bytes(b"stale")
    (place / f".{'1' * 64}.aa.part").write_bytes(b"at work")
    with (place / f".{'1' * 64}.aa.part").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert run().exit_code == 0
    assert [path.name[1] for path in place.glob(".*")] == ["1"]


def test_a_fetch_that_is_late_does_not_replace_a_newer_release(
    world: World, run: Fetch, tmp_path: Path
) -> None:
    """Two at once, from providers of which one is behind: the newer stays, whoever ends last."""
    ready, go = threading.Event(), threading.Event()
    provider = Provider(world)
    provider.files = dict(world.before)
    serve = provider.answer

    def slow(asked: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        if asked.path.startswith("/blobs/"):
            ready.set()
            go.wait(20)
        return serve(asked, connection, stop)

    (tmp_path / "root.json").write_bytes(world.root)
    old: list[BaseException | None] = []
    with Server(slow) as server:
        words = ["--root", str(tmp_path / "root.json"), "--output", str(tmp_path / "out")]
        words += ["--channel", CHANNEL, "--arch", ARCH, "--provider", server.url]

        def late() -> None:
            try:
                cli.main(["fetch", *words], standalone_mode=False)
            except PhaseError as error:
                old.append(error)

        thread = threading.Thread(target=late)
        thread.start()
        assert ready.wait(20)
        assert run().exit_code == 0
        go.set()
        thread.join(30)
    assert isinstance(old[0], RollbackError)
    newest = (tmp_path / "out/metadata/timestamp.json").read_bytes()
    assert newest == world.now["/metadata/timestamp.json"]


def test_a_fetch_of_nothing_leaves_nothing(run: Fetch, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name in ("out", "there"):
        assert isinstance(run(files={}, output=name).exception, PhaseError)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "there").exists()


def test_outputs_that_cannot_be(run: Fetch, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(OLD)
    for name, says in (("file", "file cannot be written"), ("file/below", "Not a directory")):
        result = run(output=name)
        assert isinstance(result.exception, PhaseError), result.exception
        assert says in str(result.exception)
    result = run(output="x" * 300)
    assert "File name too long" in str(result.exception)
    assert (tmp_path / "file").read_bytes() == OLD


@pytest.mark.parametrize("name", ["with space", "line\nbreak", "\udcff", "-", "ä" * 100])
def test_outputs_with_odd_names(run: Fetch, tmp_path: Path, name: str) -> None:
    result = run(output=name)
    assert result.exit_code == 0, result.output
    assert (tmp_path / name / "metadata/timestamp.json").exists()


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", ["fifo", "zero", "directory", "socket", "longer", "link"])
@pytest.mark.parametrize("place", ["blobs/sha256", "metadata"])
def test_verify_refuses_odd_files_by_name(
    run: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, place: str
) -> None:
    assert run().exit_code == 0
    name = "timestamp.json" if place == "metadata" else None
    path = tmp_path / "out" / place / (name or max((tmp_path / "out" / place).iterdir()).name)
    content = path.read_bytes()
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "longer":
        path.write_bytes(content + b" more")
    elif kind == "link":
        (tmp_path / "same").write_bytes(content)
        path.symlink_to(tmp_path / "same")
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as listener:
            monkeypatch.chdir(path.parent)
            listener.bind(path.name)
    words = ["verify", str(tmp_path / "out"), "--root", str(tmp_path / "root.json")]
    result = CliRunner().invoke(cli, [*words, "--channel", CHANNEL, "--arch", ARCH])
    assert isinstance(result.exception, PhaseError), result.output
    assert path.name[:14] in str(result.exception)
    if kind == "longer" and not name:
        assert f"it has {len(content) + 5} bytes, signed are {len(content)}" in str(result.exception)
