"""A medium from beginning to end, with a small seed in the place of the real one, which scenarios boot."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from boot import __main__ as command
from boot import debs, images, programs
from boot.media import loaders, spdx, sums
from phase.boot import cache
from tests.boot.reads import names, program, sections, table

Boot = Callable[..., int]
#: The name that a removable medium's program has for firmware of each architecture.
FIRST = {"x86_64": "EFI/BOOT/BOOTX64.EFI", "arm64": "EFI/BOOT/BOOTAA64.EFI"}

#: What a build leaves, in the order in which it is told.
LEFT = ("medium", "medium.spdx.json", "SHA256SUMS")


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with what is otherwise fetched and built: seeds, Tor, loaders."""
    place = tmp_path / "parts"

    def kept(name: str, content: bytes) -> Path:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
        return place / name

    def seed(arch: str, *, refresh: bool = False) -> images.Seed:
        listed = [{"kind": "deb", "name": "busybox-static", "version": "1", "sha256": "a" * 64}]
        kept(f"{arch}/contents.json", json.dumps({"packages": listed}).encode())
        kernel, initramfs = (
            kept(f"{arch}/{name}", f"{name} {arch} ".encode()) for name in ("kernel", "init")
        )
        return images.Seed(arch, kernel, initramfs)

    def tor(arch: str, *, refresh: bool = False) -> images.Tor:
        archive = kept(f"{arch}/tor", f"tor {arch} ".encode())
        return images.Tor(archive, archive, (debs.Deb("tor", "0.4", "b" * 64, "tor.deb"),))

    def get(kind: str, arch: str, *, refresh: bool = False) -> programs.Program:
        path = kept(f"{arch}/{kind}", program(behind=f"{kind} {arch}".encode()))
        return programs.Program(path, debs.Deb(f"package-of-{kind}", "2", "c" * 64, "p.deb"))

    monkeypatch.setattr(images, "seed", seed)
    monkeypatch.setattr(images, "tor", tor)
    monkeypatch.setattr(programs, "get", get)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1790000000")
    kept("root.json", b"{}")
    return place


@pytest.fixture
def boot(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Boot:
    """`python -m boot build`, in this process; a medium is `out/medium`."""

    def run(kind: str, *words: str) -> int:
        given = ["--out", str(tmp_path / "out/medium"), "--root", str(parts / "root.json")]
        monkeypatch.setattr(sys, "argv", ["boot", "build", kind, *given, *words])
        return command.main()

    return run


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    return tmp_path / "out/medium"


def content(image: Path, name: str) -> bytes:
    """A file of the EFI system partition, by mtools."""
    done = subprocess.run(["mtype", "-i", f"{image}@@1M", f"::/{name}"], capture_output=True, check=True)
    return done.stdout


def files(image: Path) -> set[str]:
    """All paths there, by mtools."""
    command = ["mdir", "-b", "-/", "-i", f"{image}@@1M", "::/"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {line.removeprefix("::/") for line in told.splitlines() if not line.endswith("/")}


def packages(image: Path) -> list[tuple[str, str]]:
    """What the list beside it says that it was made of: name and package URL."""
    (_, *found) = json.loads(image.with_name(f"{image.name}.spdx.json").read_text())["packages"]
    return [(each["name"], each["externalRefs"][0]["referenceLocator"]) for each in found]


def test_a_stick_has_for_each_machine_a_loader_a_kernel_and_a_configured_initramfs(
    boot: Boot, medium: Path, parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert boot("usb", "--mode", "local", "--channel", "beta", "--cmdline", "a=b") == 0
    for arch in ("x86_64", "arm64"):
        assert content(medium, FIRST[arch]) == (parts / arch / "systemd-boot").read_bytes()
        assert content(medium, f"phase/{arch}/kernel") == f"kernel {arch} ".encode()
        seed, config = content(medium, f"phase/{arch}/initramfs").split(b" ", 2)[1:]
        assert seed == arch.encode()
        assert names(config) == {"etc/phase/root.json": b"{}", "etc/phase/build-time": b"1790000000\n"}
        for mode in ("internet", "local", "private"):
            entry = content(medium, f"loader/entries/phase-{arch}-{mode}.conf").decode()
            assert f"quiet phase.channel=beta phase.mode={mode} a=b\n" in entry
    assert b"default phase-*-local.conf\n" in content(medium, "loader/loader.conf")
    assert len(files(medium)) == 2 * (3 + 3) + 1
    out = medium.parent
    assert capsys.readouterr().out.split() == [str(out / name) for name in LEFT]
    assert {path.name for path in out.iterdir()} == {*LEFT}, "and nothing else is left"
    assert len(table(medium)) == 1


def test_the_list_beside_a_medium_is_of_it_and_what_it_was_made_of(boot: Boot, medium: Path) -> None:
    assert boot("usb", "--tor") == 0
    listed = json.loads(medium.with_name("medium.spdx.json").read_text())
    assert (listed["name"], listed["creationInfo"]["created"]) == ("medium", "2026-09-21T14:13:20Z")
    sum_ = listed["packages"][0]["checksums"][0]["checksumValue"]
    assert sum_ == hashlib.sha256(medium.read_bytes()).hexdigest()
    assert {each["fileName"] for each in listed["files"]} == {f"./{name}" for name in files(medium)}
    wanted = ["busybox-static", "package-of-systemd-boot", "tor"]
    assert [name for name, _ in packages(medium)] == [name for name in wanted for _ in range(2)]
    assert all(f"arch={arch}" in " ".join(at for _, at in packages(medium)) for arch in ("amd64", "arm64"))
    check = ["sha256sum", "--check", "--strict", sums.NAME]
    told = subprocess.run(check, cwd=medium.parent, check=True, capture_output=True, text=True).stdout
    assert told == "medium: OK\nmedium.spdx.json: OK\n"


def test_tor_stands_between_a_seed_and_its_configuration(boot: Boot, medium: Path) -> None:
    assert boot("usb", "--tor", "--arch", "arm64") == 0
    assert content(medium, "phase/arm64/initramfs").startswith(b"init arm64 tor arm64 07070")
    assert not any("x86_64" in name for name in files(medium)), "one architecture was asked for"


def test_grub_has_a_menu_of_its_own(boot: Boot, medium: Path, parts: Path) -> None:
    tor = ("--cmdline", "phase.tor=192.0.2.9:9050")
    assert boot("usb", "--loader", "grub", "--mode", "private", *tor) == 0
    assert content(medium, FIRST["arm64"]) == (parts / "arm64/grub").read_bytes()
    menu = content(medium, loaders.GRUB).decode()
    assert "set default=private\n" in menu
    assert menu.count("menuentry ") == menu.count("\nfi\n") == menu.count("\n}\n") == 6
    assert not any(name.startswith("loader/") for name in files(medium))


def test_a_unified_image_is_all_there_is(boot: Boot, medium: Path) -> None:
    """No menu: what its mode is stands in the program itself."""
    assert boot("usb", "--loader", "uki", "--mode", "local", "--arch", "x86_64") == 0
    assert files(medium) == {FIRST["x86_64"]}
    found = sections(content(medium, FIRST["x86_64"]))
    assert b"console=ttyS0,115200 quiet phase.channel=stable phase.mode=local" in found[".cmdline"][1]
    assert found[".linux"][1] == b"kernel x86_64 "
    assert found[".initrd"][1].startswith(b"init x86_64 07070")
    assert [name for name, _ in packages(medium)] == ["busybox-static", "package-of-stub"]


def test_a_unified_image_is_signed(
    boot: Boot, medium: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=mine", "-days", "2"]
    made = [*request, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)
    words = ("--sign-key", str(key), "--sign-cert", str(certificate), "--arch", "x86_64")
    assert boot("usb", *words) == 1
    assert "the loader systemd-boot would start programs without a signature" in capsys.readouterr().err
    assert not medium.exists()
    assert boot("usb", "--loader", "uki", *words) == 0
    (tmp_path / "program").write_bytes(content(medium, FIRST["x86_64"]))
    subprocess.run(
        ["sbverify", "--cert", certificate, tmp_path / "program"], check=True, capture_output=True
    )


def test_a_virtual_machines_disk_is_the_same_disk(boot: Boot, medium: Path, tmp_path: Path) -> None:
    assert boot("usb", "--arch", "arm64", "--cache", "128M") == 0
    assert [each["name"] for each in table(medium)] == ["phase-esp", cache.LABEL]
    stick = medium.rename(tmp_path / "stick")
    assert boot("qcow2", "--arch", "arm64", "--cache", "128M") == 0
    assert medium.read_bytes()[:4] == b"QFI\xfb"
    raw = tmp_path / "raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", medium, raw], check=True, capture_output=True)
    assert hashlib.sha256(raw.read_bytes()).digest() == hashlib.sha256(stick.read_bytes()).digest()


def test_a_cd_keeps_nothing_and_is_a_cd(
    boot: Boot, medium: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert boot("iso", "--cache", "1G") == 1
    assert "an ISO image has no partition to keep releases on" in capsys.readouterr().err
    assert not medium.exists()
    assert boot("iso", "--arch", "x86_64") == 0
    assert medium.read_bytes()[16 * 2048 :][1:6] == b"CD001"


@pytest.mark.parametrize(("text", "size"), [("128M", 128 << 20), ("1G", 1 << 30)])
def test_the_partition_for_releases_has_the_size_that_was_asked_for(
    boot: Boot, medium: Path, text: str, size: int
) -> None:
    assert boot("usb", "--arch", "arm64", "--cache", text) == 0
    assert int(str(table(medium)[1]["size"])) * 512 == size


@pytest.mark.parametrize("text", ["0M", "M", "12", "1.5G", "1g", "1234567M", "-1G", "1G "])
def test_what_is_no_size(boot: Boot, medium: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        boot("usb", f"--cache={text}")
    assert ended.value.code == 2
    assert f"{text!r} is not a size" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["device", "directory"])
def test_what_is_no_file_is_not_replaced(
    boot: Boot, medium: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    medium.parent.mkdir()
    medium.symlink_to("/dev/null") if kind == "device" else medium.mkdir()
    assert boot("usb") == 1
    assert f"{medium} is not a file" in capsys.readouterr().err
    assert [path.name for path in medium.parent.iterdir()] == ["medium"]


def test_a_build_takes_the_place_of_the_one_before(boot: Boot, medium: Path) -> None:
    medium.parent.mkdir()
    medium.write_bytes(b"before")
    assert boot("usb", "--arch", "arm64") == 0
    assert len(table(medium)) == 1
    assert spdx.document(medium, "medium", {}, [], 0)
