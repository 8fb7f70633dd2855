"""A power cut at any moment of an update: the machine boots the release before or the next, and no other."""

import shutil
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from phase.boot import cache
from phase.boot.fake import StartedError
from phase.boot.update import Update
from phase.release.repository import Repository
from phase.trust import floor
from tests.phase.boot.conftest import ARCH, HEADS, Boot, Serve
from tests.phase.boot.cuts import CutError, Power

NOBODY = "http://127.0.0.1:9"
#: More operations than an update has.
MOST = 500


@pytest.fixture
def machine(
    boot: Boot, kept: Path, tmp_path: Path, publish: Callable[..., Repository], serve: Serve
) -> "Machine":
    return Machine(boot, kept, tmp_path, publish(), serve)


class Machine:
    """A machine that runs the first release, with a disk, and providers of that one and the next.

    Attributes:
        releases: the hash of each release's kernel.
    """

    def __init__(self, boot: Boot, kept: Path, tmp_path: Path, repository: Repository, serve: Serve) -> None:
        self.boot, self.disk, self.tmp_path, self.repository = boot, kept, tmp_path, repository
        boot.machine.etc["allow-offline"] = b""
        self.add("2.0.0")
        first = repository.manifest("stable", ARCH).artifacts["kernel"].sha256
        for name in ("running", "old"):
            shutil.copytree(tmp_path / "r", tmp_path / name, symlinks=True)
        self.old = serve("old")
        boot(self.old)
        shutil.copytree(kept, tmp_path / "whole")
        self.add("3.0.0")
        self.new = serve()
        self.releases = [first, repository.manifest("stable", ARCH).artifacts["kernel"].sha256]

    def add(self, release: str) -> None:
        """Publish one more release, a small one: it is booted some hundred times."""
        offset, magic = HEADS[ARCH]
        image = bytearray(release.encode() * 2000)
        image[offset : offset + len(magic)] = magic
        for name, data in (
            ("kernel", bytes(image)),
            ("initramfs", b"initramfs"),
            ("rootfs", release.encode() * 99),
        ):
            (self.tmp_path / f"n-{name}").write_bytes(data)
        artifacts = {name: self.tmp_path / f"n-{name}" for name in ("kernel", "initramfs", "rootfs")}
        self.repository.add("stable", ARCH, artifacts, cmdline="quiet", release=release, fall_back=True)
        self.repository.publish()

    def reset(self) -> None:
        """The disk is as it was before any update."""
        shutil.rmtree(self.disk)
        shutil.copytree(self.tmp_path / "whole", self.disk)

    def update(self) -> None:
        """Become the next release; ends by an exception."""
        machine = self.boot.prepared(self.new, words="phase.mdns=off")
        Update(machine, self.tmp_path / "running", timeout=20).start_newer()

    def boots(self, url: str) -> str:
        """The hash of the kernel that the next boot starts; nothing where it refuses."""
        code, asked = self.boot(url, words="phase.mdns=off phase.timeout=1")
        assert (code, len(asked.loaded)) in ((0, 1), (1, 0))
        return sha256(asked.loaded[0][1]).hexdigest() if asked.loaded else ""

    def cuts(self, monkeypatch: pytest.MonkeyPatch, *, lost: bool) -> Iterator[int]:
        """Cut the power at each operation of an update in turn; the last one goes through."""
        for at in range(MOST):
            self.reset()
            power = Power(self.disk, at)
            with monkeypatch.context() as patch:
                power.install(patch)
                with pytest.raises((CutError, StartedError)) as ended:
                    self.update()
            if ended.type is StartedError:
                assert at > 20
                return
            if lost:
                power.lose()
            yield at
        pytest.fail("an update has no end")


@pytest.mark.parametrize("lost", [False, True])
def test_after_a_cut_either_release_boots_without_anybody(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    """Where what was written and not synced is lost, too."""
    first, second = machine.releases
    found = [machine.boots(NOBODY) for _ in machine.cuts(monkeypatch, lost=lost)]
    # Once the next one was there whole, it is the one.
    assert found == sorted(found, key=[first, second].index)
    assert set(found) == {first, second}


@pytest.mark.parametrize("lost", [False, True])
def test_after_a_cut_the_next_release_boots_from_who_has_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    publisher = floor.publisher(machine.boot.machine.etc["root.json"])
    for at in machine.cuts(monkeypatch, lost=lost):
        cache.Cache(machine.disk, publisher).floors()  # none of them is damaged
        assert machine.boots(machine.new) == machine.releases[1], at


def test_after_a_cut_nothing_older_than_the_floor_boots(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider of the release before is believed until the next one was seen; never after that."""
    machine.boot.machine.etc.pop("allow-offline")
    publisher = floor.publisher(machine.boot.machine.etc["root.json"])
    believed = []
    for _ in machine.cuts(monkeypatch, lost=False):
        role = next(
            name for name in cache.Cache(machine.disk, publisher).floors().own.meta if "stable" in name
        )
        seen = cache.Cache(machine.disk, publisher).floors().own.meta[role]
        believed.append((seen, machine.boots(machine.old)))
    assert set(believed) == {(2, machine.releases[0]), (3, "")}
