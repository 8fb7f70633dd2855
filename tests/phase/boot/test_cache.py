import errno
import os
import subprocess
from pathlib import Path

import pytest

from phase import files, trust
from phase.boot import cache, mounts
from phase.boot.cache import Cache
from phase.boot.errors import CacheError
from phase.trust import floor as floors
from phase.trust.floor import Kept

NAME = "a" * 64
OTHER = "b" * 64
OURS = floors.publisher(b"our root")
FLOOR = floors.name_of(OURS)
NOTHING = Kept()


def _image(path: Path, *, label: str, kind: str = "ext4") -> Path:
    path.touch()
    subprocess.run(["mke2fs", "-q", "-t", kind, "-L", label, path, "2M"], check=True, timeout=30)
    return path


def test_it_is_known_by_its_label(tmp_path: Path) -> None:
    listing, devices = tmp_path / "sys", tmp_path / "dev"
    devices.mkdir()
    for name in ("sr0", "vda", "vdb", "vdc"):
        (listing / name).mkdir(parents=True)
    _image(devices / "vda", label="phase-cache2")
    (devices / "vdb").write_bytes(b"short")
    assert cache.find(str(listing), str(devices)) is None
    _image(devices / "vdc", label="phase-cache")
    assert cache.find(str(listing), str(devices)) == str(devices / "vdc")
    assert cache.find(str(tmp_path / "none"), str(devices)) is None


def test_a_device_that_only_says_so_is_none() -> None:
    assert not cache.is_ours(b"")
    assert not cache.is_ours(b"phase-cache" * 200)


def test_the_floor_is_kept(tmp_path: Path) -> None:
    floor = trust.Floor(root=1, timestamp=2, snapshot=3, meta={"targets.json": 4}, time=5)
    assert Cache(tmp_path, OURS).floors().own == trust.Floor()
    Cache(tmp_path, OURS).raise_floor(floor, NOTHING)
    assert Cache(tmp_path, OURS, writable=False).floors().own == floor


def test_a_damaged_floor_is_for_a_person(tmp_path: Path) -> None:
    (tmp_path / FLOOR).write_bytes(b"{")
    with pytest.raises(trust.TrustError, match=r"the cache's trust state .* is damaged.*phase\.cache=off"):
        Cache(tmp_path, OURS).floors()


def test_a_release_replaces_the_one_before(tmp_path: Path) -> None:
    kept = Cache(tmp_path, OURS)
    for name in (NAME, OTHER):
        file = kept.open(name, 5, ())
        assert file is not None
        os.write(file, b"bytes")
        os.close(file)
    kept.remember({"1.targets.json": b"old", "timestamp.json": b"1"}, [NAME, OTHER])
    kept.remember({"2.targets.json": b"new", "timestamp.json": b"2"}, [OTHER])
    assert kept.metadata() == {"2.targets.json": b"new", "timestamp.json": b"2"}
    assert os.listdir(tmp_path / "blobs/sha256") == [OTHER]
    assert kept.get("timestamp.json", 10) == b"2"
    # One byte too many, so that who asked sees that it is too long.
    assert kept.get("2.targets.json", 1) == b"ne"
    with pytest.raises(trust.NotFoundError):
        kept.get("1.targets.json", 10)


def test_a_directory_that_cannot_be_listed_holds_no_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged file system costs a fetch, and does not end the boot."""
    kept = Cache(tmp_path, OURS)
    kept.remember({"timestamp.json": b"1"}, ())

    def damaged(*_: object) -> None:
        raise OSError(errno.EUCLEAN, os.strerror(errno.EUCLEAN))

    for listing in ("listdir", "scandir"):
        monkeypatch.setattr(os, listing, damaged)
    assert kept.metadata() == {}


def test_what_may_only_be_read_is_not_written(tmp_path: Path) -> None:
    Cache(tmp_path, OURS).remember({"timestamp.json": b"1"}, [])
    before = sorted(tmp_path.rglob("*"))
    kept = Cache(tmp_path, OURS, writable=False)
    kept.raise_floor(trust.Floor(root=9), NOTHING)
    kept.remember({"timestamp.json": b"2"}, [])
    assert kept.open(NAME, 5, ()) is None
    assert kept.metadata() == {"timestamp.json": b"1"}
    assert sorted(tmp_path.rglob("*")) == before


def test_room_is_made_of_what_is_not_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Cache(tmp_path, OURS)
    for name in (NAME, OTHER):
        (tmp_path / "blobs/sha256" / name).write_bytes(bytes(8192))
    other = tmp_path / "blobs/sha256" / OTHER
    monkeypatch.setattr(Cache, "_free", lambda _: 0 if other.exists() else 9000)
    assert kept.open("c" * 64, 10_000, [NAME]) is None
    assert os.listdir(tmp_path / "blobs/sha256") == [NAME]
    file = kept.open("c" * 64, 9000, [NAME])
    assert file is not None
    os.close(file)


def test_no_link_leads_out(tmp_path: Path) -> None:
    kept, outside = Cache(tmp_path / ".", OURS), tmp_path / "outside"
    outside.write_bytes(b"precious")
    (tmp_path / "blobs/sha256" / NAME).symlink_to(outside)
    assert kept.open(NAME, 5, ()) is None


@pytest.mark.timeout(10)
@pytest.mark.parametrize("writable", [True, False])
def test_no_pipe_is_waited_for(tmp_path: Path, writable: bool) -> None:
    Cache(tmp_path, OURS)
    for name in (f"metadata-{OURS}/timestamp.json", f"blobs/sha256/{NAME}", FLOOR):
        os.mkfifo(tmp_path / name)
    kept = Cache(tmp_path, OURS, writable=writable)
    assert kept.metadata() == {}
    with pytest.raises(trust.NotFoundError):
        kept.get("timestamp.json", 10)
    assert kept.open(NAME, 5, ()) is None
    with pytest.raises(trust.TrustError, match="it is not a regular file"):
        kept.floors()
    if writable:
        kept.remember({"timestamp.json": b"1"}, [])
        assert kept.metadata() == {"timestamp.json": b"1"}


def test_a_link_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    kept, victim = Cache(tmp_path, OURS), tmp_path / "victim"
    victim.write_bytes(b"precious")
    for name in (f"metadata-{OURS}/timestamp.json", f"metadata-{OURS}/1.root.json", FLOOR):
        (tmp_path / name).symlink_to(victim)
    assert kept.metadata() == {}
    with pytest.raises(trust.NotFoundError):
        kept.get("timestamp.json", 10)
    kept.remember({"timestamp.json": b"1"}, [])
    kept.raise_floor(trust.Floor(root=1), NOTHING)
    assert kept.metadata() == {"timestamp.json": b"1"}
    assert kept.floors().own.root == 1
    assert victim.read_bytes() == b"precious"


@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize("name", [f"metadata-{OURS}", "blobs", "blobs/sha256"])
def test_a_directory_elsewhere_is_none_of_ours(tmp_path: Path, name: str, writable: bool) -> None:
    outside, disk = tmp_path / "outside", tmp_path / "disk"
    (outside / "sha256").mkdir(parents=True)
    (disk / name).parent.mkdir(parents=True)
    (disk / name).symlink_to(outside)
    with pytest.raises(CacheError, match=f"{name} cannot be used: it is not a directory"):
        Cache(disk, OURS, writable=writable)
    assert os.listdir(outside) == ["sha256"]


def test_a_release_is_kept_file_by_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Cache(tmp_path, OURS)
    kept.remember({"1.root.json": b"root", "timestamp.json": b"1"}, [])
    root, timestamp = tmp_path / f"metadata-{OURS}/1.root.json", tmp_path / f"metadata-{OURS}/timestamp.json"
    before = root.stat()

    def no_power(source: Path, to: Path) -> None:
        assert (Path(to), Path(source).read_bytes()) == (timestamp, b"2")
        raise OSError(5, "no power")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", no_power)
        with pytest.raises(CacheError, match="no power"):
            kept.remember({"1.root.json": b"root", "timestamp.json": b"2"}, [])
    assert kept.metadata() == {"1.root.json": b"root", "timestamp.json": b"1"}
    (tmp_path / f"metadata-{OURS}/.timestamp.json.left.tmp").touch()
    kept.remember({"1.root.json": b"root", "timestamp.json": b"2"}, [])
    assert sorted(os.listdir(tmp_path / f"metadata-{OURS}")) == ["1.root.json", "timestamp.json"]
    assert timestamp.read_bytes() == b"2"
    # What has not changed is not written.
    assert (root.stat().st_ino, root.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_no_more_is_read_than_the_artifact_has(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 8192)
    with path.open("rb") as handle:
        found = list(cache.blocks(handle.fileno(), (1 << 20) + 7))
        assert [offset for offset, _ in found] == [0, 1 << 20]
        assert b"".join(data for _, data in found) == path.read_bytes()[: (1 << 20) + 7]
        assert sum(len(data) for _, data in cache.blocks(handle.fileno(), 1 << 30)) == 2 << 20


def test_a_device_that_is_none_cannot_be_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "modules").touch()
    monkeypatch.setattr(cache, "_MODULES", str(tmp_path / "modules"))
    with pytest.raises(CacheError, match=r"mkfs\.ext4 -L phase-cache"):
        cache.mount(str(tmp_path / "none"), str(tmp_path / "at"), OURS, writable=True)


@pytest.mark.parametrize("writable", [True, False])
def test_the_kernel_follows_no_link_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writable: bool
) -> None:
    calls: list[object] = []

    def mounted(_device: str, directory: str, _kind: str, *, flags: int, options: str) -> None:
        calls.append((flags & 256, options != "noload"))

    (tmp_path / "modules").touch()
    monkeypatch.setattr(cache, "_MODULES", str(tmp_path / "modules"))
    monkeypatch.setattr(mounts, "mount", mounted)
    monkeypatch.setattr(cache, "unmount", calls.append)
    cache.mount("/dev/disk", str(tmp_path), OURS, writable=writable)
    assert calls == [(256, writable)]
    # What cannot be used does not stay mounted.
    (tmp_path / "disk").mkdir()
    (tmp_path / f"disk/metadata-{OURS}").symlink_to(tmp_path)
    with pytest.raises(CacheError, match=r"metadata-.* cannot be used"):
        cache.mount("/dev/disk", str(tmp_path / "disk"), OURS, writable=writable)
    assert calls[2:] == [str(tmp_path / "disk")]


def test_the_timestamp_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the rest: a power cut in the middle must leave the release before."""
    kept = Cache(tmp_path, OURS)
    written: list[str] = []
    write = files.write

    def noted(path: Path, data: bytes, *, mode: int) -> None:
        written.append(path.name)
        write(path, data, mode=mode)

    monkeypatch.setattr(files, "write", noted)
    names = ("timestamp.json", "1.snapshot.json", "zz.json", "1.root.json", "root.json", "5.targets.json")
    kept.remember({name: name.encode() for name in names}, ())
    assert written[-1] == "timestamp.json"
    assert sorted(written) == sorted(names)
    # And it is not written at all where one before it cannot be.
    (tmp_path / f"metadata-{OURS}/9.snapshot.json").mkdir()
    with pytest.raises(CacheError, match="cannot be kept"):
        kept.remember({"timestamp.json": b"new", "9.snapshot.json": b"new"}, ())
    assert (tmp_path / f"metadata-{OURS}/timestamp.json").read_bytes() == b"timestamp.json"
    assert (tmp_path / f"metadata-{OURS}/5.targets.json").exists()


def test_what_a_publisher_kept_that_is_forgotten_goes_too(tmp_path: Path) -> None:
    names = [floors.publisher(bytes([number])) for number in range(floors.MAX_PUBLISHERS + 1)]
    for number, name in enumerate(names):
        kept = Cache(tmp_path, name)
        kept.raise_floor(trust.Floor(root=1, time=number + 1), kept.floors())
    assert not (tmp_path / f"metadata-{names[0]}").exists()
    assert all((tmp_path / f"metadata-{name}").exists() for name in names[1:])


def test_of_all_metadata_no_more_is_read_than_there_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_MAX_ALL", 25)
    place = tmp_path / f"metadata-{OURS}"
    place.mkdir()
    for name in ("a", "b", "c"):
        (place / f"{name}.json").write_bytes(b"x" * 10)
    assert [len(data) for data in Cache(tmp_path, OURS).metadata().values()] == [10, 10, 5]
