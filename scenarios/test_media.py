"""Boot media (media.md): what a person writes to a stick, in machines that have nothing else to boot."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import pytest

from boot import cache
from boot.media import build, line, loaders
from lab.plugin import Record
from lab.qemu.command import Bus, Disk
from lab.topology import Lab
from scenarios import media
from scenarios.images import CHANNEL, Release
from scenarios.loop import Loop, mark
from tests import pages

#: A time of a build: any, as long as the session's release has not expired then.
EPOCH = str(int(time.time()))
PAGE = "docs/use/media.md"


@pytest.fixture
def loop(lab: Lab, record: Record, release: Release, arch: str, tmp_path: Path) -> Loop:
    return Loop(lab, record, release, arch, tmp_path)


@pytest.mark.lab(seconds=90)
@pytest.mark.images("x86_64", "arm64")
def test_one_stick_boots_both_architectures(loop: Loop, tmp_path: Path) -> None:
    """The page's command, an emulated stick, firmware that finds it by itself, and the way to the job."""
    (tmp_path / "repo").symlink_to(loop.release.directory)
    blocks = pages.chosen(PAGE, "test_one_stick_boots_both_architectures")
    pages.run(blocks, tmp_path, pages.environment(tmp_path), 600)
    with loop.provided():
        stick = media.written(tmp_path / "stick.img", tmp_path / "stick")
        client = media.boot(loop, Disk(stick, bus="usb", access="read-only"))
        loop.reaches_job(client)
        loop.report("USB stick", client)
        running = line.compose(loop.arch, channel=CHANNEL, mode="internet", words="phase.job=hello")
        loop.handed_over(client, running)
        loop.receipt_holds(client)


@pytest.mark.lab(seconds=30)
@pytest.mark.parametrize("loader", ["systemd-boot", "grub"])
def test_a_person_chooses_a_mode(
    loop: Loop, loader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The menu waits for a key; the entry below the first is local mode. Nothing writes to the stick."""
    # A person's three seconds are too few for a program on a busy host, which has four keys to press.
    monkeypatch.setattr(loaders, "_SECONDS", 60)
    plan = media.plan(loop.release, (loop.arch,))._replace(loader=loader)
    build.build("usb", plan, tmp_path / "stick.img")
    before = (tmp_path / "stick.img").read_bytes()
    client = media.boot(loop, Disk(tmp_path / "stick.img", bus="usb", access="read-write"))
    media.says(client, "Phase, private")
    if loader == "grub":
        # A person there may choose, and not write a command line.
        client.console.send("e")
        media.says(client, "Enter username")
        client.console.send("\x1b")
    client.console.send("\x1b[B")
    client.console.send("\r")
    assert client.wait_mark("init", timeout=90).facts["mode"] == "local"
    client.stop()
    assert (tmp_path / "stick.img").read_bytes() == before


@pytest.mark.lab(seconds=20)
@pytest.mark.parametrize(
    ("kind", "bus", "loader"),
    [
        ("usb", "usb", "uki"),
        ("usb", "ahci", "uki"),
        ("usb", "ahci", "grub"),
        ("qcow2", "nvme", "systemd-boot"),
        ("iso", "cd", "grub"),
        ("iso", "usb", "grub"),
    ],
)
def test_each_medium_starts_from_each_kind_of_drive(
    loop: Loop, kind: str, bus: Bus, loader: str, tmp_path: Path
) -> None:
    """As far as the seed's own start: what it does then is the same everywhere."""
    if bus == "ahci" and loop.arch == "arm64":
        pytest.skip("the firmware of ARM64 machines has no driver for AHCI")
    plan = media.plan(loop.release, (loop.arch,))._replace(loader=loader)
    build.build(kind, plan, tmp_path / "medium")
    stored: Literal["raw", "qcow2"] = "qcow2" if kind == "qcow2" else "raw"
    client = media.boot(loop, Disk(tmp_path / "medium", bus=bus, format=stored))
    assert client.wait_mark("init", timeout=120).facts["mode"] == "internet"


@pytest.mark.lab(seconds=60)
def test_a_cd_goes_the_whole_way(loop: Loop, tmp_path: Path) -> None:
    """What a stick is, a CD is, too: firmware finds the same file system by another catalog."""
    plan = media.plan(loop.release, (loop.arch,))
    build.build("iso", plan, tmp_path / "phase.iso")
    with loop.provided():
        client = media.boot(loop, Disk(tmp_path / "phase.iso", bus="cd"))
        loop.reaches_job(client)
        loop.report("CD", client)
        loop.handed_over(client, plan.options(loop.arch, plan.mode))
        loop.receipt_holds(client)


@pytest.mark.lab(seconds=110)
def test_a_disk_image_keeps_releases(loop: Loop, tmp_path: Path) -> None:
    """By GRUB, twice: the second time the release comes from the image's own partition."""
    plan = media.plan(loop.release, (loop.arch,))._replace(loader="grub", kept=256 << 20)
    build.build("qcow2", plan, tmp_path / "disk.qcow2")
    disk = Disk(tmp_path / "disk.qcow2", bus="nvme", format="qcow2", access="read-write")
    with loop.provided():
        client = media.boot(loop, disk)
        loop.reaches_job(client)
        assert mark(client, "fetch").facts["kept"] == 0
        client.stop()
        client.start()
        client.wait_mark("job", timeout=240)
        fetched = mark(client, "fetch").facts
        assert fetched["kept"] == fetched["bytes"]
        loop.report("disk image with a cache", client)
        loop.handed_over(client, plan.options(loop.arch, plan.mode))
        loop.receipt_holds(client)


@pytest.mark.lab(vcpus=1, seconds=60)
@pytest.mark.usefixtures("lab")  # for its lease
def test_two_clones_make_the_same_media(release: Release, arch: str, tmp_path: Path) -> None:
    """In two directories, each with images of its own; only what was downloaded is shared."""
    root = release.directory / "metadata/1.root.json"
    for clone in ("one", "two/deeper"):
        place, images = tmp_path / clone / "phase", tmp_path / clone / "cache/images"
        subprocess.run(["git", "clone", "-q", pages.PROJECT, place], check=True)
        images.mkdir(parents=True)
        (images.parent / "apt").symlink_to(cache.root() / "apt")
        for tree in (cache.root() / "images").glob("tree-*"):
            (images / tree.name).symlink_to(tree)
        for kind, more in (("usb", ["--cache", "128M"]), ("qcow2", []), ("iso", ["--loader", "grub"])):
            out = tmp_path / clone / "media" / f"phase.{kind}"
            words: list[str | Path] = ["build", kind, "--arch", arch, "--out", out, *more]
            words += ["--root", root, "--floor", release.directory]
            subprocess.run(
                [sys.executable, "-m", "boot", *words],
                cwd=place,
                env=os.environ | {"PHASE_CACHE": str(images.parent), "SOURCE_DATE_EPOCH": EPOCH},
                check=True,
                stdout=subprocess.DEVNULL,
            )
    one, two = (
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in place.iterdir()}
        for place in (tmp_path / "one/media", tmp_path / "two/deeper/media")
    )
    assert len(one) == 7
    assert one == two
