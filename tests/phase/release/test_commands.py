"""`phase release` as people use it: alone, in a ceremony, when keys are lost."""

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from click.testing import CliRunner

from fixtures import artifacts
from phase import trust
from phase.cli import cli
from phase.provider import make_app
from phase.release import check

PASSPHRASE = "correct horse"
Release = Callable[..., str]


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    """Runs `phase release ...` in an empty directory with a kernel in it; returns what it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PHASE_RELEASE_PASSPHRASE", PASSPHRASE)
    (tmp_path / "vmlinuz").write_bytes(artifacts.kernel())
    (tmp_path / "initrd.img").write_bytes(artifacts.initramfs())

    def run(words: str, *more: str) -> str:
        done = CliRunner().invoke(cli, ["release", *words.split(), *more], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    return run


def believed(
    directory: str = "repo", channel: str = "stable", root: int = 1, **more: Any
) -> trust.Refreshed:
    trusted = Path("repo", "metadata", f"{root}.root.json").read_bytes()
    return check.verify(
        Path(directory), trusted, channel=channel, arch="x86_64", now=datetime.now(UTC), **more
    )


ALONE = "init repo --new-keys keys --cost interactive"
ADD = "add repo testing x86_64 --kernel vmlinuz --initramfs initrd.img --release 1.0 --keys keys --cmdline"


async def test_device_trees_go_from_the_command_to_whoever_asks(release: Release) -> None:
    trees = {name: artifacts.device_tree(name.encode()) for name in ("bcm2711-rpi-4-b", "virt")}
    Path("given").mkdir()
    Path("given/BCM2711-rpi-4-b.dtb").write_bytes(trees["bcm2711-rpi-4-b"])
    Path("given/virt.dtb").write_bytes(trees["virt"])
    Path("given/board").mkdir()
    Path("given/board/virt.dtb").write_bytes(b"another")
    release(ALONE)
    Path("Image").write_bytes(artifacts.kernel("arm64"))
    add = "add repo stable arm64 --kernel Image --release 1.0 --keys keys"
    both = "--dtb given/BCM2711-rpi-4-b.dtb --dtb given/virt.dtb"
    done = CliRunner().invoke(cli, ["release", *f"{add} {both} --dtb given/board/virt.dtb".split()])
    assert (done.exit_code, "same name" in done.output) == (2, True)
    release(f"{add} {both}")
    release("verify repo")
    async with TestClient(TestServer(make_app(Path("repo")))) as client:
        manifest = json.loads(await (await client.get("/stable/arm64/manifest.json")).read())["signed"]
        for name, data in trees.items():
            signed = manifest["targets"][f"stable/arm64/dtb-{name}"]
            assert (signed["length"], signed["hashes"]["sha256"]) == (len(data), sha256(data).hexdigest())
            for path in (f"/stable/arm64/dtb-{name}", f"/blobs/sha256/{sha256(data).hexdigest()}"):
                answer = await client.get(path)
                assert (answer.status, await answer.read()) == (200, data)


def test_one_person_publishes_promotes_and_exports(release: Release) -> None:
    assert "published in repo" in release(ALONE)
    assert "published in repo" in release(ADD, "quiet splash")
    release("promote repo testing stable --keys keys")
    release("refresh repo --keys keys")
    found = believed().manifest
    assert (found.release, found.cmdline, found.version) == ("1.0", "quiet splash", 1)
    assert (
        found.artifacts["kernel"].sha256 == believed(channel="testing").manifest.artifacts["kernel"].sha256
    )
    told = release("export repo out --only stable/amd64 --only testing/x86_64")
    assert f"{sum(path.is_file() for path in Path('out').rglob('*'))} files written" in told
    assert believed("out") == believed()
    assert "0 files written" in release("export repo out")
    assert not list(Path("out").rglob("*.lock"))
    assert not Path("out/staged").exists()
    facts = json.loads(release("show repo --json"))
    assert facts["roles"]["root"]["threshold"] == 2
    assert {each["channel"] for each in facts["releases"]} == {"stable", "testing"}
    assert facts["releases"][0]["artifacts"] == {"initramfs": len(artifacts.initramfs()), "kernel": 5000}
    assert "root: 2 of 3 sign" in release("show repo")
    assert "stable/x86_64 1.0 (version 1) verified" in release("verify repo")


def test_private_keys_are_unreadable_without_the_passphrase(
    release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(ALONE)
    stored = json.loads(Path("keys/targets.json").read_bytes())
    assert stored["sealed"]["kdf"] == "argon2id13"
    assert "seed" not in stored
    add = "add repo stable x86_64 --kernel vmlinuz --release 1 --keys keys"
    monkeypatch.setenv("PHASE_RELEASE_PASSPHRASE", "another one")
    done = CliRunner().invoke(cli, ["release", *add.split()])
    assert "passphrase is wrong" in str(done.exception)
    monkeypatch.delenv("PHASE_RELEASE_PASSPHRASE")
    done = CliRunner().invoke(cli, ["release", *add.split()])
    assert "needs a passphrase" in str(done.exception)
    Path("words").write_text(f"{PASSPHRASE}\n")
    assert "published" in release(f"{add} --passphrase-file words")


def holders(release: Release) -> str:
    """Three people with a root key each, the rest at the publisher; returns the options naming them."""
    for n in (1, 2, 3):
        release(f"key holder{n}/root-{n}.json --role root --cost interactive")
    for role in ("targets", "release"):
        release(f"key signer/{role}.json --role {role} --cost interactive")
    for role in ("snapshot", "timestamp"):
        release(f"key online/{role}.json --role {role} --plain")
    public = [*sorted(Path().glob("holder*/*.pub")), *sorted(Path().glob("signer/*.pub"))]
    return " ".join(f"--public {path}" for path in public)


def test_in_a_ceremony_no_machine_holds_all_keys(release: Release) -> None:
    options = holders(release)
    said = release(f"init repo {options} --threshold root=2 --keys online")
    assert "root: 0 of 2 signatures" in said
    assert "targets: 0 of 1 signatures" in said
    assert not Path("repo/metadata").exists()
    release("sign repo --export stick")
    shown = release("sign stick --keys holder1")
    assert "2 of 3 sign root" in shown
    assert "signed root" in shown
    release("sign stick --keys signer")
    assert "root: 1 of 2 signatures" in release("sign repo --import stick --keys online")
    assert not Path("repo/metadata").exists()
    release("sign stick --keys holder3")
    assert "published in repo" in release("sign repo --import stick --keys online")
    release("add repo stable x86_64 --kernel vmlinuz --release 1 --keys online")
    release("sign repo --export stick2")
    shown = release("sign stick2 --keys signer")
    assert "kernel: 5000 bytes, sha256" in shown
    assert "published" in release("sign repo --import stick2 --keys online")
    assert believed().manifest.release == "1"


def test_a_refresh_leaves_what_waits_for_signatures_alone(release: Release) -> None:
    release(ALONE)
    release(ADD, "")
    Path("online").mkdir()
    for role in ("snapshot", "timestamp"):
        shutil.copy(f"keys/{role}.json", "online")
    release("add repo testing x86_64 --kernel vmlinuz --release 2 --keys online")
    release("refresh repo --keys online")
    assert believed(channel="testing").manifest.release == "1.0"
    assert "waits for signatures: testing-x86_64 0/1" in release("show repo")
    assert "published" in release("sign repo --keys keys")
    assert believed(channel="testing").manifest.release == "2"


def test_signatures_over_something_else_are_not_taken(release: Release) -> None:
    options = holders(release)
    release(f"init repo {options} --keys online")
    release("sign repo --export stick")
    path = Path("stick/root.json")
    document = json.loads(path.read_bytes())
    document["signed"]["roles"]["root"]["threshold"] = 1
    path.write_text(json.dumps(document))
    done = CliRunner().invoke(cli, ["release", "sign", "repo", "--import", "stick", "--keys", "online"])
    assert "another root than the one that waits here" in str(done.exception)


def test_a_stranger_who_signs_does_not_count(release: Release) -> None:
    options = holders(release)
    release(f"init repo {options} --keys online")
    release("key stranger/root.json --role root --plain")
    release("sign repo --export stick")
    refused = CliRunner().invoke(cli, ["release", "sign", "stick", "--keys", "stranger"])
    assert refused.exit_code == 1
    assert "is not one of its keys, and does not sign it" in refused.stderr
    assert "nothing is signed" in str(refused.exception)
    for signs in ("holder1", "signer"):
        release(f"sign stick --keys {signs}")
    assert "root: 1 of 2 signatures" in release("sign repo --import stick --keys online")
    release("sign stick --keys holder2")
    release("sign repo --import stick --keys online")
    signatures = json.loads(Path("repo/metadata/1.root.json").read_bytes())["signatures"]
    assert len(signatures) == 2


def test_keys_are_rotated_and_old_clients_follow(release: Release) -> None:
    release(ALONE)
    release(ADD, "")
    floor = believed(channel="testing").floor
    for role in ("timestamp", "release"):
        release(f"key fresh/{role}.json --role {role} --plain")
    public = "--public fresh/timestamp.pub --public fresh/release.pub"
    release(f"rotate repo {public} --yes --keys keys --keys fresh")
    found = believed(channel="testing", floor=floor)
    assert found.floor.root == 2
    shutil.rmtree("keys")
    Path("keys").mkdir()
    facts = json.loads(release("show repo --json"))["roles"]
    assert facts["timestamp"]["keys"] == [Path("fresh/timestamp.pub").read_text().split()[2]]
    release("refresh repo --keys fresh")
    assert believed(channel="testing", floor=found.floor).manifest.release == "1.0"


def test_a_lost_root_key_is_revoked_by_the_others(release: Release) -> None:
    release(ALONE)
    release(ADD, "")
    lost = json.loads(Path("keys/root-1.json").read_bytes())["public"]
    Path("keys/root-1.json").unlink()
    release("key new/root-4.json --role root --plain")
    release(f"revoke repo {lost[:16]} --yes --public new/root-4.pub --keys keys --keys new")
    roots = json.loads(release("show repo --json"))["roles"]["root"]
    assert lost not in roots["keys"]
    assert (len(roots["keys"]), roots["threshold"]) == (3, 2)
    assert believed(channel="testing").floor.root == 2


def test_a_lost_timestamp_key_is_replaced_with_a_gap(release: Release) -> None:
    release(ALONE)
    release(ADD, "")
    lost = json.loads(Path("keys/timestamp.json").read_bytes())["public"]
    Path("keys/timestamp.json").unlink()
    release("key new/timestamp.json --role timestamp --plain")
    words = f"revoke repo {lost} --yes --public new/timestamp.pub --keys keys --keys new"
    done = CliRunner().invoke(cli, ["release", *words.split()])
    assert "0 of the keys of timestamp by the previous root" in str(done.exception)
    assert believed(channel="testing").floor.root == 1
    assert not Path("repo/staged/root.json").exists()
    release(f"{words} --gap")
    assert believed(channel="testing").floor.root == 2


def test_a_threshold_nobody_can_reach_is_refused(release: Release) -> None:
    done = CliRunner().invoke(cli, ["release", *ALONE.split(), "--threshold", "root=4"])
    assert "4 of 3 keys of root cannot sign" in str(done.exception)


def test_a_damaged_blob_is_found(release: Release) -> None:
    release(ALONE)
    release(ADD, "")
    blob = next(path for path in Path("repo/blobs/sha256").iterdir() if path.stat().st_size == 5000)
    blob.chmod(0o644)
    blob.write_bytes(b"k" * 5000)
    done = CliRunner().invoke(cli, ["release", "verify", "repo"])
    assert "is not the signed file" in str(done.exception)
