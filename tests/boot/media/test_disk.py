"""A disk image, read by other programs than those that made it."""

import hashlib
import re
import struct
import subprocess
from pathlib import Path

import pytest

from boot.errors import BuildError
from boot.media import build, disk, fat, gpt, iso, line, loaders
from boot.media.build import Plan
from boot.media.loaders import Entry
from phase.boot import cache
from tests.boot.reads import table

#: Of everything on a medium: 1980.
TIME = 315_532_800
FILES: dict[str, bytes | Path] = {
    "EFI/BOOT/BOOTX64.EFI": b"x" * 3000,
    "loader/entries/phase-internet-x86_64.conf": b"title Phase\n",
}


def test_firmware_finds_the_files(tmp_path: Path) -> None:
    image = tmp_path / "disk, of a kind"
    disk.write(image, FILES)
    (esp,) = table(image)
    assert str(esp["type"]).lower() == gpt.ESP
    assert esp["start"] == 2048
    assert (2048 + int(str(esp["size"])) + 2048) * 512 == image.stat().st_size
    alone = tmp_path / "esp"
    alone.write_bytes(image.read_bytes()[1 << 20 :][: int(str(esp["size"])) * 512])
    for name, content in FILES.items():
        got = subprocess.run(["mtype", "-i", alone, f"::/{name}"], capture_output=True, check=True)
        assert got.stdout == content
    # The type of the file system, as its first sector names it.
    assert alone.read_bytes()[82:90] == b"FAT32   "


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    """In whatever order they are named, and wherever they lie."""
    (tmp_path / "other").mkdir()
    program = tmp_path / "other" / "program"
    program.write_bytes(b"x" * 3000)
    turned: dict[str, bytes | Path] = {name: FILES[name] for name in reversed(FILES)} | {
        "EFI/BOOT/BOOTX64.EFI": program
    }
    places = [tmp_path / "one", tmp_path / "other" / "two"]
    for place, files in zip(places, (FILES, turned), strict=True):
        disk.write(place, files)
    one, two = (hashlib.sha256(place.read_bytes()).hexdigest() for place in places)
    assert one == two
    told = subprocess.run(["mdir", "-/", "-i", f"{places[0]}@@1M", "::/"], capture_output=True, text=True)
    dates = re.findall(r"\d{4}-\d\d-\d\d", told.stdout)
    assert len(dates) >= len(FILES)
    assert set(dates) == {"1980-01-01"}
    disk.write(places[1], FILES | {"a": b""})
    assert table(places[0])[0]["uuid"] != table(places[1])[0]["uuid"], "another medium, and the same name"


def test_it_is_fat32_however_little_is_in_it(tmp_path: Path) -> None:
    """EDK2 counts clusters, as the specification says, and takes fewer for FAT16."""
    (tmp_path / "image").write_bytes(b"")
    length = fat.size({"a": b""})
    with (tmp_path / "image").open("r+b") as image:
        image.truncate(length)
    fat.write(tmp_path / "image", {"a": b""}, offset=0, length=length, serial=1)
    head = (tmp_path / "image").read_bytes()[:512]
    reserved, tables = int.from_bytes(head[14:16], "little"), head[16]
    sectors, each = (int.from_bytes(head[at : at + 4], "little") for at in (32, 36))
    assert (sectors - reserved - tables * each) // head[13] >= 65_525
    assert sectors * 512 == length


def test_there_is_room_for_all_that_is_given(tmp_path: Path) -> None:
    files = {f"d{number}/f{number}": b"x" * 513 for number in range(40)} | {"large": bytes(70 << 20)}
    disk.write(tmp_path / "image", files)
    assert table(tmp_path / "image")
    got = subprocess.run(
        ["mdir", "-b", "-/", "-i", f"{tmp_path / 'image'}@@1M", "::/"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(got.stdout.splitlines()) == 81


def test_a_command_line_names_consoles_unless_it_has_one() -> None:
    plain = line.compose("arm64", channel="beta", mode="local")
    assert plain == "console=tty0 console=ttyAMA0,115200 quiet phase.channel=beta phase.mode=local"
    own = line.compose("x86_64", channel="stable", mode="private", words="console=hvc0 phase.mdns=off")
    assert own == "quiet phase.channel=stable phase.mode=private console=hvc0 phase.mdns=off"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("phase.rescue=never", "phase.rescue=never"),
        ("phase.chanel=x", "there is no such parameter"),
        ("phase.mode=local", "stands there twice"),
        ("x" * 2048, "2047 is the most"),
        ('a="b c"', "loaders differ"),
        ("a=$b", "loaders differ"),
    ],
)
def test_a_command_line_that_no_seed_would_take_as_written(words: str, why: str) -> None:
    with pytest.raises(BuildError, match=why):
        line.compose("x86_64", channel="stable", mode="internet", words=words)


def test_a_channel_is_one_word() -> None:
    with pytest.raises(BuildError, match=r"'phase.channel=a init=/bin/sh' cannot be"):
        line.compose("x86_64", channel="a init=/bin/sh", mode="internet")


def test_a_partition_for_releases(tmp_path: Path) -> None:
    """The seed knows it by its label; e2fsck finds nothing wrong with it."""
    image = tmp_path / "image"
    disk.write(image, FILES, kept=disk.LEAST_CACHE)
    esp, kept = table(image)
    assert (kept["name"], kept["start"]) == ("phase-cache", int(str(esp["start"])) + int(str(esp["size"])))
    with image.open("rb") as handle:
        handle.seek(int(str(kept["start"])) * 512)
        (tmp_path / "ext4").write_bytes(handle.read(disk.LEAST_CACHE))
    assert cache.find(*directory_of(tmp_path / "ext4")) is not None
    superblock = (tmp_path / "ext4").read_bytes()[1024:2048]
    assert [struct.unpack_from("<I", superblock, at)[0] for at in (0x2C, 0x30, 0x108)] == [0, TIME, TIME]
    subprocess.run(["/sbin/e2fsck", "-f", "-n", tmp_path / "ext4"], check=True, capture_output=True)
    disk.write(tmp_path / "again", FILES, kept=disk.LEAST_CACHE)
    assert (tmp_path / "again").read_bytes() == image.read_bytes()


def test_file_systems_of_two_media_are_told_apart(tmp_path: Path) -> None:
    """Both may be in one machine, and GRUB finds the one it came from by these."""
    found = []
    for name in ("one", "two"):
        disk.write(tmp_path / name, FILES | {"name": name.encode()}, kept=disk.LEAST_CACHE)
        esp, kept = table(tmp_path / name)
        with (tmp_path / name).open("rb") as handle:
            handle.seek(int(str(esp["start"])) * 512 + 67)
            serial = handle.read(4)
            handle.seek(int(str(kept["start"])) * 512 + 1024 + 0x68)
            found.append((serial, handle.read(16)))
    (serial, number), (other_serial, other_number) = found
    assert serial != other_serial
    assert number != other_number


def directory_of(device: Path) -> tuple[str, str]:
    """A directory of devices that has this one alone."""
    made = device.with_name("devices")
    made.mkdir()
    device.rename(made / device.name)
    device.symlink_to(made / device.name)
    return str(made), str(made)


@pytest.mark.parametrize("kept", [1, disk.LEAST_CACHE - (1 << 20), disk.LEAST_CACHE + 1])
def test_a_cache_that_cannot_be(kept: int, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="128M is the least"):
        disk.write(tmp_path / "image", FILES, kept=kept)


def test_an_iso_is_a_cd_and_a_stick(tmp_path: Path) -> None:
    """Both ways lead to the same file system."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        iso.write(tmp_path / name / "image", FILES)
    image = tmp_path / "one" / "image"
    content = image.read_bytes()
    assert content == (tmp_path / "two" / "image").read_bytes()
    assert content[16 * 2048 :][813:829] == b"1980010100000000", "when the volume was made"
    esp = table(image)[1]
    assert str(esp["type"]).lower() == gpt.ESP
    start = int(str(esp["start"])) * 512
    # The boot record of El Torito names the catalog, and that the image, in blocks of 2048 bytes.
    assert content[17 * 2048 :][1:6] == b"CD001"
    (catalog,) = struct.unpack_from("<I", content, 17 * 2048 + 71)
    platform, bootable = content[catalog * 2048 + 1], content[catalog * 2048 + 32]
    assert (platform, bootable) == (0xEF, 0x88)
    (first,) = struct.unpack_from("<I", content, catalog * 2048 + 40)
    assert first * 2048 == start
    assert content[start:][82:90] == b"FAT32   "


def test_grub_on_a_cd_is_led_to_the_file_system_with_the_kernels(tmp_path: Path) -> None:
    """It looks for its menu in the CD's own file system; the serial number is that of the other one."""
    image = tmp_path / "image"
    files = {**FILES, **loaders.grub([Entry("x86_64", "local", "quiet")], mode="local")}
    iso.write(image, files)
    extract: list[str | Path] = ["xorriso", "-osirrox", "on", "-indev", image]
    extract += ["-extract", "/EFI/debian", tmp_path / "found"]
    subprocess.run(extract, check=True, capture_output=True)
    search, configfile = (tmp_path / "found/grub.cfg").read_text().splitlines()
    start = int(str(table(image)[1]["start"])) * 512
    (number,) = struct.unpack_from("<I", image.read_bytes(), start + 67)
    assert search == f"search --set=root --fs-uuid {number >> 16:04X}-{number & 0xFFFF:04X}"
    assert configfile == f"configfile ($root)/{loaders.GRUB}"


def test_what_is_in_a_place_is_not_replaced_by_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(plan: Plan, files: disk.Files, image: Path, work: Path) -> None:
        image.write_bytes(b"half")
        raise BuildError("no room")

    monkeypatch.setitem(build.KINDS, "usb", broken)
    monkeypatch.setattr(build, "gather", lambda plan, work: build.Content({}, []))
    (tmp_path / "stick").write_bytes(b"before")
    with pytest.raises(BuildError, match="no room"):
        build.build("usb", Plan(("x86_64",), b""), tmp_path / "stick")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("stick", b"before")]
