"""What the seed keeps from one boot to the next: releases on a disk, floors wherever there is a place."""

import json
import shutil
import time
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from phase import trust
from phase.boot import efi
from phase.boot.cache import Cache
from phase.boot.linux import Linux
from phase.boot.remembered import Remembered
from phase.release import check
from phase.release.keys import ReleaseKeys
from phase.release.repository import Repository
from phase.trust import floor, wire
from tests.phase.boot.conftest import ARCH, Asked, Boot, Publish, Serve, kernel


def test_a_kept_release_starts_only_where_it_may(
    boot: Boot, publish: Publish, serve: Serve, kept: Path, tmp_path: Path
) -> None:
    publish()
    assert boot(serve())[0] == 0
    assert (kept / floor_of(boot)).exists()
    nobody = "http://127.0.0.1:9"
    assert boot(nobody) == (1, Asked([], []))
    boot.machine.etc["allow-offline"] = b""
    code, asked = boot(nobody)
    assert (code, asked.started) == (0, [True])


def publisher(boot: Boot) -> str:
    """Of the seed that booted last."""
    return floor.publisher(boot.machine.etc["root.json"])


def floor_of(boot: Boot) -> str:
    return floor.name_of(publisher(boot))


def firmware(boot: Boot) -> trust.Floor:
    """What the firmware remembers of that publisher."""
    return efi.load(publisher(boot), str(boot.machine.variables)).own


def newer(repository: Repository, tmp_path: Path, name: str = "r") -> None:
    """Publish one more release."""
    artifacts = {each: tmp_path / f"{name}-{each}" for each in ("kernel", "initramfs", "rootfs")}
    repository.add("stable", ARCH, artifacts, cmdline="quiet", release="1.0.1")
    repository.publish()


@pytest.mark.parametrize("keys", ["ours", "fresh"])
def test_a_revoked_key_stays_revoked_where_the_release_is_withheld(
    boot: Boot, publish: Publish, serve: Serve, kept: Path, tmp_path: Path, keys: str
) -> None:
    repository = publish()
    digest = repository.manifest("stable", ARCH).artifacts["kernel"].sha256
    assert boot(serve())[0] == 0
    (tmp_path / "r-kernel").write_bytes(kernel(ARCH))
    artifacts = {name: tmp_path / f"r-{name}" for name in ("kernel", "initramfs", "rootfs")}
    repository.add("stable", ARCH, artifacts, cmdline="quiet", release="1.0.1")
    repository.rotate(ReleaseKeys.from_seed(keys))
    repository.publish()
    shutil.copytree(tmp_path / "r/metadata", tmp_path / "withheld/metadata", symlinks=True)
    (tmp_path / "withheld/blobs/sha256").mkdir(parents=True)
    boot.machine.etc["allow-offline"] = b""
    code, asked = boot(serve("withheld"))
    if keys == "ours":
        # The root is another one, but the keys of the release that is here are still good by it.
        assert code == 0
        assert sha256(asked.loaded[0][1]).hexdigest() == digest
    else:
        assert (code, asked) == (1, Asked([], []))
        # Nor without the root that revokes it, now that it is known to exist.
        (kept / f"metadata-{publisher(boot)}/2.root.json").unlink()
        assert boot("http://127.0.0.1:9") == (1, Asked([], []))


def test_what_is_kept_is_verified_where_it_is_booted_from(
    boot: Boot, publish: Publish, serve: Serve, kept: Path, tmp_path: Path
) -> None:
    blob = kept / "blobs/sha256" / publish().manifest("stable", ARCH).artifacts["kernel"].content
    assert boot(serve())[0] == 0
    good = blob.read_bytes()
    blob.write_bytes(good[: 1 << 20] + b"?" + good[(1 << 20) + 1 :])
    boot.machine.etc["allow-offline"] = b""
    assert boot("http://127.0.0.1:9") == (1, Asked([], []))
    # With a provider, the one chunk is fetched again, and kept again.
    code, asked = boot(serve())
    assert code == 0
    assert asked.loaded[0][1] == good
    assert blob.read_bytes() == good


def test_nothing_older_is_taken_again(
    boot: Boot, publish: Publish, serve: Serve, kept: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    repository = publish()
    shutil.copytree(tmp_path / "r", tmp_path / "old", symlinks=True)
    newer(repository, tmp_path)
    assert boot(serve())[0] == 0
    assert boot(serve("old")) == (1, Asked([], []))
    assert "was trusted before" in capfd.readouterr().err


@pytest.mark.parametrize("words", ["phase.nowrite", "phase.mode=private", "phase.cache=off"])
def test_nothing_is_kept_where_nothing_may_be(
    boot: Boot, publish: Publish, serve: Serve, tor: str, kept: Path, words: str
) -> None:
    publish()
    words = f"{words} phase.tor={tor}"
    assert boot(serve(), words=words)[0] == 0
    assert not list(kept.rglob("*"))


def test_firmware_remembers_where_no_disk_does(
    boot: Boot, publish: Publish, serve: Serve, tor: str, nvram: Path, tmp_path: Path
) -> None:
    repository = publish()
    shutil.copytree(tmp_path / "r", tmp_path / "old", symlinks=True)
    newer(repository, tmp_path)
    assert boot(serve(), words="phase.nowrite")[0] == 0
    assert boot(serve(), words=f"phase.mode=private phase.tor={tor}")[0] == 0
    assert not list(nvram.iterdir())
    assert boot(serve())[0] == 0
    assert boot(serve("old")) == (1, Asked([], []))


def test_a_refusal_is_the_disks_fault_only_where_a_disk_says_something(
    boot: Boot,
    publish: Publish,
    serve: Serve,
    nvram: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    repository = publish()
    shutil.copytree(tmp_path / "r", tmp_path / "old", symlinks=True)
    newer(repository, tmp_path)
    assert boot(serve())[0] == 0
    assert boot(serve("old"))[0] == 1
    assert "phase.cache=off" not in capfd.readouterr().err
    boot.machine.disk = tmp_path / "disk"
    boot.machine.disk.mkdir()
    assert boot(serve("old"))[0] == 1
    assert "phase.cache=off" not in capfd.readouterr().err, "it remembers nothing"
    assert boot(serve())[0] == 0
    assert boot(serve("old"))[0] == 1
    assert "boot with phase.cache=off" in capfd.readouterr().err


@pytest.mark.parametrize("place", ["cache", "firmware"])
def test_what_another_publisher_keeps_damaged_is_passed_over_and_said(
    boot: Boot,
    publish: Publish,
    serve: Serve,
    kept: Path,
    nvram: Path,
    capfd: pytest.CaptureFixture[str],
    place: str,
) -> None:
    publish()
    other = floor.publisher(b"theirs")
    damaged = kept / floor.name_of(other) if place == "cache" else nvram / efi.name_of(other)
    damaged.write_bytes(b"\x07\0\0\0{")
    assert boot(serve())[0] == 0
    said = capfd.readouterr().err
    assert f"phase: {place}: not of this publisher, and passed over: " in said


def test_what_is_kept_has_the_grace_of_the_image(
    boot: Boot, publish: Publish, serve: Serve, kept: Path
) -> None:
    publish(days_ago=10)  # its timestamp held for seven
    boot.machine.etc |= {"grace-local": b"432000\n", "allow-offline": b""}
    assert boot(serve(), words="phase.mode=local")[0] == 0
    nobody = "http://127.0.0.1:9"
    assert boot(nobody, words="phase.mode=local")[0] == 0
    assert boot(nobody)[0] == 1, "its grace is another mode's"
    boot.machine.etc["grace-local"] = b"86400\n"
    assert boot(nobody, words="phase.mode=local")[0] == 1


def test_a_disk_cannot_lower_what_the_firmware_remembers(
    boot: Boot, publish: Publish, serve: Serve, kept: Path, nvram: Path, tmp_path: Path
) -> None:
    """It names the root, the highest timestamp there can be, and keys that are nobody's."""
    repository = publish()
    shutil.copytree(tmp_path / "r", tmp_path / "old", symlinks=True)
    newer(repository, tmp_path)
    assert boot(serve())[0] == 0
    newest = firmware(boot)
    liar = trust.Floor(root=1, timestamp=10**9, snapshot=10**9, keys={"timestamp": ["00"], "snapshot": []})
    floor.save(kept / floor_of(boot), liar)
    assert boot(serve("old")) == (1, Asked([], []))
    assert firmware(boot) == newest
    assert boot(serve())[0] == 0
    assert firmware(boot).timestamp == newest.timestamp == 2


@pytest.mark.parametrize("place", ["firmware", "the disk's own", "the image"])
def test_an_older_kept_release_offline_is_held_to_every_place(
    boot: Boot, publish: Publish, serve: Serve, kept: Path, nvram: Path, tmp_path: Path, place: str
) -> None:
    """Somebody puts a disk with an older release into a machine that had a newer one whole."""
    repository = publish()
    boot.machine.etc["allow-offline"] = b""
    boot.machine.variables = None
    assert boot(serve())[0] == 0
    shutil.copytree(kept, tmp_path / "older")
    newer(repository, tmp_path)
    boot.machine.disk, boot.machine.variables = kept, nvram
    assert boot(serve())[0] == 0
    known = (kept / floor_of(boot)).read_bytes()
    nobody = "http://127.0.0.1:9"
    assert boot(nobody)[0] == 0, "the newer one is here"
    boot.machine.disk = tmp_path / "older"
    if place != "firmware":
        boot.machine.variables = None
        assert boot(nobody)[0] == 0, "nothing remembers the newer one"
        if place == "the image":
            boot.machine.etc["floor.json"] = known
        else:
            (boot.machine.disk / floor_of(boot)).write_bytes(known)
    assert boot(nobody) == (1, Asked([], []))


def test_a_newer_release_that_never_came_does_not_keep_the_older_from_booting(
    boot: Boot, publish: Publish, serve: Serve, kept: Path, nvram: Path, tmp_path: Path
) -> None:
    repository = publish()
    digest = repository.manifest("stable", ARCH).artifacts["kernel"].sha256
    assert boot(serve())[0] == 0
    (tmp_path / "r-kernel").write_bytes(kernel(ARCH))
    newer(repository, tmp_path)
    shutil.copytree(tmp_path / "r/metadata", tmp_path / "withheld/metadata", symlinks=True)
    (tmp_path / "withheld/blobs/sha256").mkdir(parents=True)
    boot.machine.etc["allow-offline"] = b""
    for urls in ([serve("withheld")], ["http://127.0.0.1:9"]):
        code, asked = boot(*urls)
        assert (code, sha256(asked.loaded[0][1]).hexdigest()) == (0, digest)
    assert firmware(boot).meta[f"stable-{ARCH}.json"] == 2
    assert firmware(boot).whole == {f"stable-{ARCH}.json": 1}


def test_the_time_of_a_disk_is_not_the_firmwares(
    boot: Boot, publish: Publish, serve: Serve, kept: Path, nvram: Path
) -> None:
    """Its owner may say any at which the release still holds; nobody has signed for it."""
    publish()
    before = int(time.time())
    assert boot(serve())[0] == 0
    own = floor.load(kept / floor_of(boot))
    late = before + 6 * 86_400
    floor.save(kept / floor_of(boot), own._replace(time=late))
    (nvram / efi.name_of(publisher(boot))).unlink()
    assert boot(serve())[0] == 0
    assert floor.load(kept / floor_of(boot)).time == late
    assert before <= firmware(boot).time <= time.time()


def test_two_publishers_seeds_on_one_machine_keep_their_floors(
    boot: Boot, publish: Publish, serve: Serve, kept: Path, nvram: Path, tmp_path: Path
) -> None:
    """By turns, with a disk and firmware; each publishes anew meanwhile, and then offers what was before."""
    boot.machine.etc["allow-offline"] = b""
    both = {"a": publish("a", keys="of a"), "b": publish("b", keys="of b")}
    for name in both:
        shutil.copytree(tmp_path / name, tmp_path / f"{name}-old", symlinks=True)
    for turn in range(3):
        for name, repository in both.items():
            newer(repository, tmp_path, name)
            assert boot(serve(name), root=name)[0] == 0
            for other in both:
                if other == name or turn or name == "b":
                    assert boot(serve(f"{other}-old"), root=other, words="phase.cache=off")[0] == 1
                    boot.machine.variables = None
                    shutil.copytree(kept, tmp_path / f"copy-{turn}-{name}-{other}")
                    boot.machine.disk = tmp_path / f"copy-{turn}-{name}-{other}"
                    boot.machine.etc.pop("allow-offline")
                    assert boot(serve(f"{other}-old"), root=other)[0] == 1, "the disk remembers"
                    boot.machine.disk, boot.machine.variables = kept, nvram
                    boot.machine.etc["allow-offline"] = b""
    assert len(list(nvram.iterdir())) == 2
    # What one has damaged stops nobody but its own.
    boot.prepared(root="a")
    for path in (nvram / efi.name_of(publisher(boot)), kept / floor_of(boot)):
        path.write_bytes(b"\x07\0\0\0{")
    assert boot(serve("b"), root="b")[0] == 0
    assert boot(serve("a"), root="a")[0] == 1


def test_another_publishers_roots_leave_a_kept_release_as_it_is(
    boot: Boot, publish: Publish, serve: Serve, kept: Path, tmp_path: Path
) -> None:
    boot.machine.etc["allow-offline"] = b""
    for name in ("a", "b"):
        repository = publish(name, keys=f"of {name}")
        repository.rotate(ReleaseKeys.from_seed(f"of {name}"))
        repository.publish()
    assert boot(serve("a"), root="a")[0] == 0
    shutil.copytree(tmp_path / "b/metadata", tmp_path / "withheld/metadata", symlinks=True)
    (tmp_path / "withheld/blobs/sha256").mkdir(parents=True)
    assert boot(serve("withheld"), root="b")[0] == 1
    assert boot("http://127.0.0.1:9", root="a")[0] == 0


def test_a_disk_that_says_too_much_is_named_with_the_way_out(
    boot: Boot, publish: Publish, serve: Serve, kept: Path, nvram: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its owner claims the highest versions there are by the right keys, or the last day of all."""
    publish()
    url = serve()
    assert boot(url)[0] == 0
    own, known = floor.load(kept / floor_of(boot)), firmware(boot)
    late = own.time + 9 * 86_400
    for claimed, says in (
        (own._replace(timestamp=10**9), " the cache is one of the places that remember versions"),
        (own._replace(time=late), "is from the cache; if its disk is not this machine's"),
    ):
        floor.save(kept / floor_of(boot), claimed)
        capfd.readouterr()
        assert boot(url) == (1, Asked([], []))
        assert says in capfd.readouterr().err
        assert boot(url, words="phase.cache=off")[0] == 0
        # None of it has got any further.
        assert firmware(boot) == known
    (kept / floor_of(boot)).unlink()
    capfd.readouterr()
    assert boot("http://127.0.0.1:9") == (1, Asked([], []))
    assert "phase.cache=off" not in capfd.readouterr().err


@pytest.mark.parametrize("place", ["firmware", "disk", "image"])
@pytest.mark.parametrize(
    "content",
    [b"{", b'{"root":true}', b"[" * 100_000, bytes(5 << 20)],
    ids=["cut off", "true", "deep", "too large"],
)
def test_a_floor_that_cannot_be_read_is_said_with_the_way_out(
    boot: Boot,
    publish: Publish,
    serve: Serve,
    tor: str,
    kept: Path,
    nvram: Path,
    capfd: pytest.CaptureFixture[str],
    place: str,
    content: bytes,
) -> None:
    publish()
    assert boot(serve())[0] == 0
    capfd.readouterr()
    if place == "firmware":
        (nvram / efi.name_of(publisher(boot))).write_bytes(b"\x07\0\0\0" + content)
    elif place == "disk":
        (kept / floor_of(boot)).write_bytes(content)
    else:
        boot.machine.etc["floor.json"] = content
    assert boot(serve()) == (1, Asked([], []))
    # At once: no provider could help.
    assert not boot.machine.slept
    said = capfd.readouterr().err
    assert "is damaged" in said
    words = {"firmware": "phase.mode=private", "disk": "phase.cache=off", "image": ""}[place]
    assert (f"{words} boots without it" if words else "Build the seed anew") in said
    if words:
        assert boot(serve(), words=f"{words} phase.tor={tor}")[0] == 0
        # The remedy that is named for good.
        assert "you know that no older release can be offered here" in said
        for path in (nvram / efi.name_of(publisher(boot)), kept / floor_of(boot)):
            path.unlink()
        assert boot(serve())[0] == 0


def test_the_largest_floor_that_is_taken_can_be_read_in_every_place(
    boot: Boot, publish: Publish, serve: Serve, kept: Path, nvram: Path, tmp_path: Path
) -> None:
    """Whoever has the snapshot's key may name so many files, with names so long."""
    publish()
    assert boot(serve())[0] == 0
    own = floor.load(kept / floor_of(boot))
    names = {f"{number:05}{'n' * (wire.MAX_FILE_NAME - 10)}.json": 1 for number in range(wire.MAX_FILES - 2)}
    largest = own._replace(meta={**own.meta, **names}, timestamp=own.timestamp + 1)
    assert len(floor.encode(largest)) > 1 << 20
    manifest = Repository.open(tmp_path / "r").manifest("stable", ARCH)
    seen = Remembered(boot.machine, boot.machine.etc["root.json"])
    seen.look_at_firmware()
    seen.look_at(Cache(kept, publisher(boot)))
    seen.raise_to(largest, manifest, write_firmware=True)
    assert floor.load(kept / floor_of(boot)).meta == largest.meta
    assert firmware(boot).timestamp == largest.timestamp
    assert set(firmware(boot).meta) == {"targets.json", f"stable-{ARCH}.json"}
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/floor.json").write_bytes(floor.encode(largest) + b"\n")
    found = Linux(etc=str(tmp_path / "etc")).config("floor.json")
    assert found is not None
    assert floor.parse(found, "image") == largest


def test_nobody_at_all_is_enough_to_boot_what_is_kept(
    boot: Boot, publish: Publish, serve: Serve, kept: Path
) -> None:
    publish()
    assert boot(serve())[0] == 0
    boot.machine.etc["allow-offline"] = b""
    assert boot(words="phase.timeout=60")[0] == 0
    assert len(boot.machine.searches) == 1


def test_the_image_remembers_for_a_machine_that_cannot(
    boot: Boot, publish: Publish, serve: Serve, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    repository = publish()
    shutil.copytree(tmp_path / "r", tmp_path / "old", symlinks=True)
    newer(repository, tmp_path)
    assert boot(serve("old"))[0] == 0
    root = (tmp_path / "r/metadata/1.root.json").read_bytes()
    boot.machine.etc["floor.json"] = floor.encode(check.newest(tmp_path / "r", root, now=datetime.now(UTC)))
    assert boot(serve("old")) == (1, Asked([], []))
    assert "version 2 was trusted before" in capfd.readouterr().err
    assert boot(serve())[0] == 0
    boot.machine.etc["floor.json"] = b"{"
    assert boot(serve()) == (1, Asked([], []))


def test_what_is_kept_is_no_older_than_the_image(
    boot: Boot, publish: Publish, serve: Serve, kept: Path, tmp_path: Path
) -> None:
    repository = publish()
    assert boot(serve())[0] == 0
    newer(repository, tmp_path)
    boot.machine.etc["allow-offline"] = b""
    nobody = "http://127.0.0.1:9"
    assert boot(nobody)[0] == 0
    root = (tmp_path / "r/metadata/1.root.json").read_bytes()
    boot.machine.etc["floor.json"] = floor.encode(check.newest(tmp_path / "r", root, now=datetime.now(UTC)))
    assert boot(nobody) == (1, Asked([], []))


def test_of_a_newer_release_only_the_news_are_fetched(
    boot: Boot, publish: Publish, serve: Serve, kept: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The kernel has something more in its middle; all else of it is on the disk."""
    repository = publish()
    assert boot(serve())[0] == 0
    image = (tmp_path / "r-kernel").read_bytes()
    (tmp_path / "r-kernel").write_bytes(image[: 1 << 20] + b"news" + image[1 << 20 :])
    newer(repository, tmp_path)
    capfd.readouterr()
    # Another provider: one that runs looks for news a few times a second.
    code, asked = boot(serve())
    assert code == 0
    assert asked.loaded[0][1] == (tmp_path / "r-kernel").read_bytes()
    said = capfd.readouterr().err
    mark = next(line for line in said.splitlines() if '"step":"fetch","outcome":"ok"' in line)
    facts = json.loads(mark.removeprefix("phase-mark "))
    assert 0 < facts["bytes"] - facts["reused"] - facts["kept"] < len(image) * 0.2
    # It is kept whole, so the next boot needs no provider for it.
    boot.machine.etc["allow-offline"] = b""
    code, asked = boot("http://127.0.0.1:9")
    assert code == 0
    assert asked.loaded[0][1] == (tmp_path / "r-kernel").read_bytes()
