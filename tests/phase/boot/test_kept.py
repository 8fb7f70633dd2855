"""What the seed keeps from one boot to the next: releases on a disk, floors wherever there is a place."""

import shutil
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from phase import trust
from phase.release import check
from phase.release.keys import ReleaseKeys
from phase.trust import floor
from tests.phase.boot.conftest import ARCH, Asked, Boot, Publish, Serve, kernel


def test_a_kept_release_starts_only_where_it_may(
    boot: Boot, publish: Publish, serve: Serve, kept: Path, tmp_path: Path
) -> None:
    publish()
    assert boot(serve())[0] == 0
    assert (kept / "floor.json").exists()
    nobody = "http://127.0.0.1:9"
    assert boot(nobody) == (1, Asked([], []))
    boot.machine.etc["allow-offline"] = b""
    code, asked = boot(nobody)
    assert (code, asked.started) == (0, [True])


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
        (kept / "metadata/2.root.json").unlink()
        assert boot("http://127.0.0.1:9") == (1, Asked([], []))


def test_what_is_kept_is_verified_where_it_is_booted_from(
    boot: Boot, publish: Publish, serve: Serve, kept: Path, tmp_path: Path
) -> None:
    digest = publish().manifest("stable", ARCH).artifacts["kernel"].sha256
    assert boot(serve())[0] == 0
    blob = kept / "blobs/sha256" / digest
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
    artifacts = {name: tmp_path / f"r-{name}" for name in ("kernel", "initramfs", "rootfs")}
    repository.add("stable", ARCH, artifacts, cmdline="quiet", release="1.0.1")
    repository.publish()
    assert boot(serve())[0] == 0
    assert boot(serve("old")) == (1, Asked([], []))
    assert "was trusted before" in capfd.readouterr().err


@pytest.mark.parametrize("words", ["phase.nowrite", "phase.mode=private", "phase.cache=off"])
def test_nothing_is_kept_where_nothing_may_be(
    boot: Boot, publish: Publish, serve: Serve, kept: Path, words: str
) -> None:
    publish()
    assert boot(serve(), words=words)[0] == 0
    assert not list(kept.rglob("*"))


def test_firmware_remembers_where_no_disk_does(
    boot: Boot, publish: Publish, serve: Serve, tmp_path: Path
) -> None:
    boot.machine.variable = trust.Floor()
    repository = publish()
    shutil.copytree(tmp_path / "r", tmp_path / "old", symlinks=True)
    artifacts = {name: tmp_path / f"r-{name}" for name in ("kernel", "initramfs", "rootfs")}
    repository.add("stable", ARCH, artifacts, cmdline="quiet", release="1.0.1")
    repository.publish()
    assert boot(serve(), words="phase.nowrite")[0] == 0
    assert boot(serve(), words="phase.mode=private")[0] == 0
    assert boot.machine.variable == trust.Floor()
    assert boot(serve())[0] == 0
    assert boot(serve("old")) == (1, Asked([], []))


def test_a_disk_cannot_lower_what_the_firmware_remembers(
    boot: Boot, publish: Publish, serve: Serve, kept: Path, tmp_path: Path
) -> None:
    """It names the root, the highest timestamp there can be, and keys that are nobody's."""
    boot.machine.variable = trust.Floor()
    repository = publish()
    shutil.copytree(tmp_path / "r", tmp_path / "old", symlinks=True)
    artifacts = {name: tmp_path / f"r-{name}" for name in ("kernel", "initramfs", "rootfs")}
    repository.add("stable", ARCH, artifacts, cmdline="quiet", release="1.0.1")
    repository.publish()
    assert boot(serve())[0] == 0
    newest = boot.machine.variable
    liar = trust.Floor(root=1, timestamp=10**9, snapshot=10**9, keys={"timestamp": ["00"], "snapshot": []})
    floor.save(kept / "floor.json", liar)
    assert boot(serve("old")) == (1, Asked([], []))
    assert boot.machine.variable == newest
    assert boot(serve())[0] == 0
    assert boot.machine.variable.timestamp == newest.timestamp == 2


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
    artifacts = {name: tmp_path / f"r-{name}" for name in ("kernel", "initramfs", "rootfs")}
    repository.add("stable", ARCH, artifacts, cmdline="quiet", release="1.0.1")
    repository.publish()
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
    artifacts = {name: tmp_path / f"r-{name}" for name in ("kernel", "initramfs", "rootfs")}
    repository.add("stable", ARCH, artifacts, cmdline="quiet", release="1.0.1")
    repository.publish()
    boot.machine.etc["allow-offline"] = b""
    nobody = "http://127.0.0.1:9"
    assert boot(nobody)[0] == 0
    root = (tmp_path / "r/metadata/1.root.json").read_bytes()
    boot.machine.etc["floor.json"] = floor.encode(check.newest(tmp_path / "r", root, now=datetime.now(UTC)))
    assert boot(nobody) == (1, Asked([], []))
