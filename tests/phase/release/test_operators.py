"""A repository where operators keep one: other accounts, other umasks, other disks, copies of it."""

import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fixtures import artifacts
from phase.release import check
from phase.release.keys import ReleaseKeys
from tests import accounts
from tests.accounts import Ended

ALICE, BOB, STRANGER, GROUP = 20_001, 20_002, 20_003, 30_001
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be other accounts")


@pytest.fixture
def desk() -> Iterator[Path]:
    """A directory that every account may enter, with a kernel and keys in it."""
    directory = Path(tempfile.mkdtemp(prefix="phase-operators-"))
    directory.chmod(0o755)
    (directory / "vmlinuz").write_bytes(artifacts.kernel())
    (directory / "vmlinuz").chmod(0o644)
    before = Path.cwd()
    os.chdir(directory)
    yield directory
    os.chdir(before)
    shutil.rmtree(directory)


def keys_of(directory: Path, user: int) -> None:
    """The same keys for another account, readable by it alone."""
    ReleaseKeys.from_seed("operators").save(directory)
    for path in (directory, *directory.iterdir()):
        os.chown(path, user, GROUP)


def release(words: str, **account: object) -> Ended:
    # Each caller names what `run` takes.
    return accounts.run(["release", *words.split()], **account)  # type: ignore[arg-type]


def verified(directory: Path, version: str) -> None:
    root = (directory / "metadata/1.root.json").read_bytes()
    found = check.verify(directory, root, channel="stable", arch="x86_64", now=datetime.now(UTC))
    assert found.manifest.release == version


def private(directory: Path) -> list[str]:
    """What of a tree not everybody can read."""
    found = []
    for path in (directory, *directory.rglob("*")):
        needed = 0o555 if path.is_dir() else 0o444
        if path.name != ".lock" and stat.S_IMODE(path.stat().st_mode) & needed != needed:
            found.append(f"{path} {path.stat().st_mode:o}")
    return found


ADD = "add repo stable x86_64 --kernel vmlinuz --release"


@pytest.mark.parametrize("umask", [0o077, 0o027])
def test_a_umask_of_cron_hides_nothing_that_is_published(desk: Path, umask: int) -> None:
    assert release("init repo --new-keys keys --plain", umask=umask).code == 0
    assert release(f"{ADD} 1 --keys keys", umask=umask).code == 0
    assert release("export repo public", umask=umask).code == 0
    assert private(desk / "public") == []
    assert private(desk / "repo") == []
    keys = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (desk / "keys").glob("*.json")}
    assert keys.pop("pinned.json") == 0o644  # what is published; who may use the keys reads it
    assert set(keys.values()) == {0o600}


def test_modes_of_an_earlier_umask_are_repaired(desk: Path) -> None:
    release("init repo --new-keys keys --plain")
    release(f"{ADD} 1 --keys keys")
    release("export repo public")
    for tree in ("public", "repo"):
        for path in (desk / tree).rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)
    assert release("export repo public").said.startswith("0 files written")
    assert private(desk / "public") == []
    release("refresh repo --keys keys")
    assert [path for path in private(desk / "repo") if "/metadata " in path or "/targets " in path] == []


def test_a_private_directory_on_the_way_is_left_private(desk: Path) -> None:
    """What is made is for everybody; what somebody made is his."""
    (desk / "mine").mkdir(mode=0o700)
    (desk / "mine/public").mkdir(mode=0o750)
    (desk / "hidden").mkdir(mode=0o700)
    release("init repo --new-keys keys --plain")
    release(f"{ADD} 1 --keys keys")
    assert "can enter" not in release("export repo mine/public").said
    assert "only this account can enter hidden" in release("export repo hidden").said
    assert [stat.S_IMODE((desk / name).stat().st_mode) for name in ("mine", "mine/public")] == [0o700, 0o750]


@pytest.mark.parametrize(
    "place", ["metadata", "blobs", "blobs/sha256", "targets", "targets/x", "targets/stable"]
)
def test_no_link_in_a_repository_opens_what_is_private(desk: Path, place: str) -> None:
    """Whoever may write to a repository must not have others' directories opened to everybody."""
    release("init repo --new-keys keys --plain")
    release(f"{ADD} 1 --keys keys")
    private = [desk / "private", desk / "private/sha256", desk / "private/x86_64", desk / "private/x86_64/y"]
    for path in private:
        path.mkdir(mode=0o700)
    link = desk / "repo" / place
    if link.exists():
        link.rename(desk / "was-there")
    link.symlink_to(desk / "private")
    for words in ("refresh repo --keys keys", f"{ADD} 2 --keys keys", "export repo public"):
        release(words)  # some of it is refused
    assert [stat.S_IMODE(path.stat().st_mode) for path in private] == [0o700] * len(private)


def test_a_lock_with_a_second_name_is_not_written_to(desk: Path) -> None:
    release("init repo --new-keys keys --plain")
    (desk / "victim").write_text("precious")
    (desk / "victim").chmod(0o640)
    (desk / "repo/.lock").unlink()
    os.link(desk / "victim", desk / "repo/.lock")
    release("refresh repo --keys keys")
    assert (desk / "victim").read_text() == "precious"
    assert stat.S_IMODE((desk / "victim").stat().st_mode) == 0o640


@ROOT_ONLY
@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_two_accounts_publish_by_their_group(desk: Path, umask: int) -> None:
    """A directory with setgid; whatever either's umask is, and though Linux links only one's own files."""
    for name, user in (("alice", ALICE), ("bob", BOB)):
        keys_of(desk / name, user)
    for name in ("repo", "public"):
        (desk / name).mkdir()
        os.chown(desk / name, ALICE, GROUP)
        (desk / name).chmod(0o2775)
    alice = {"user": ALICE, "group": GROUP, "umask": umask}
    bob = {"user": BOB, "group": GROUP, "umask": umask}
    for words, account in [
        ("init repo --keys alice", alice),
        (f"{ADD} 1 --keys bob", bob),
        ("promote repo stable testing --keys alice", alice),
        (f"{ADD} 2 --keys alice", alice),
        # The same kernel for another channel: a blob of alice's gets another name from bob.
        ("promote repo stable nightly --keys bob", bob),
        ("export repo public", alice),
        (f"{ADD} 3 --keys bob", bob),
        ("export repo public", bob),
        ("refresh repo --keys alice", alice),
        ("export repo public", alice),
    ]:
        done = release(words, **account)
        assert done.code == 0, (words, done.said)
    verified(desk / "repo", "3")
    verified(desk / "public", "3")
    assert private(desk / "public") == private(desk / "repo") == []
    assert stat.S_IMODE((desk / "repo/.lock").stat().st_mode) == 0o660


@ROOT_ONLY
def test_an_account_that_cannot_publish_is_refused_before_it_signs(desk: Path) -> None:
    keys_of(desk / "alice", ALICE)
    keys_of(desk / "bob", BOB)
    (desk / "repo").mkdir()
    os.chown(desk / "repo", ALICE, GROUP)
    assert release("init repo --keys alice", user=ALICE, group=GROUP).code == 0
    assert release(f"{ADD} 1 --keys alice", user=ALICE, group=GROUP).code == 0
    before = {path: path.stat().st_mtime_ns for path in (desk / "repo").rglob("*")}

    def refused() -> str:
        done = release("refresh repo --keys bob", user=BOB, group=GROUP)
        assert (done.code, done.said.count("\n")) == (1, 1), done.said
        assert "share it with a group" in done.said
        return done.said

    assert "repo cannot be written" in refused()
    (desk / "repo").chmod(0o3775)
    assert "sticky" in refused()
    (desk / "repo").chmod(0o2775)
    assert "repo/metadata cannot be written" in refused()
    assert {path: path.stat().st_mtime_ns for path in (desk / "repo").rglob("*")} == before
    # Alice's next command shares what she made before.
    assert release("refresh repo --keys alice", user=ALICE, group=GROUP).code == 0
    assert release("refresh repo --keys bob", user=BOB, group=GROUP).code == 0


@pytest.mark.parametrize("error", [errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP, errno.EMLINK])
def test_where_there_are_no_hard_links_files_are_copied(desk: Path, error: int) -> None:
    def no_links() -> None:
        accounts.refuse_links(error)

    for words in ("init repo --new-keys keys --plain", f"{ADD} 1 --keys keys", "export repo public"):
        done = release(words, before=no_links)
        assert done.code == 0, (words, done.said)
    for tree in (desk / "repo", desk / "public"):
        verified(tree, "1")
        (link,) = tree.glob("targets/stable/x86_64/*.kernel")
        assert link.read_bytes() == artifacts.kernel()
        assert link.stat().st_nlink == 1
    assert release("export repo public", before=no_links).said.startswith("0 files written")
    assert private(desk) == [] or all("keys" in path for path in private(desk))


@ROOT_ONLY
def test_targets_on_another_disk(desk: Path) -> None:
    """A real one: a mount of its own in the repository, and in what is exported."""
    release("init repo --new-keys keys --plain")
    script = (
        "set -e; mkdir -p repo/targets public/targets; mount -t tmpfs none repo/targets; "
        "mount -t tmpfs none public/targets; {phase} {add} 1 --keys keys; {phase} export repo public; "
        "cp -r repo/targets was-there; cp -r public/targets was-public"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    phase = f"{sys.executable} -m phase release"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script.format(phase=phase, add=ADD)],
        env=environment,
        capture_output=True,
        text=True,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mounts here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    for tree in ("was-there", "was-public"):
        (link,) = (desk / tree).glob("stable/x86_64/*.kernel")
        assert link.read_bytes() == artifacts.kernel()


@pytest.fixture
def stick(desk: Path) -> Iterator[Path]:
    """A stick, with a file system as sticks have it: no modes, no owners, no links."""
    tools = [shutil.which(name) for name in ("mkfs.exfat", "mount.exfat-fuse", "losetup")]
    if os.geteuid() != 0 or None in tools or not Path("/dev/fuse").exists():
        pytest.skip("needs root, exfatprogs and exfat-fuse")
    with (desk / "stick.img").open("wb") as image:
        image.truncate(64 << 20)
    subprocess.run(["mkfs.exfat", desk / "stick.img"], check=True, capture_output=True)
    words = ["losetup", "-f", "--show", str(desk / "stick.img")]
    device = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    (desk / "stick").mkdir()
    try:
        subprocess.run(["mount.exfat-fuse", device, desk / "stick"], check=True, capture_output=True)
        yield desk / "stick"
        subprocess.run(["umount", desk / "stick"], check=True)
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


def test_a_repository_on_a_stick(stick: Path) -> None:
    for words in (
        "init stick/repo --new-keys keys --plain",
        f"{ADD.replace('repo', 'stick/repo')} 1 --keys keys",
        "promote stick/repo stable testing --keys keys",
        "export stick/repo stick/public",
        "refresh stick/repo --keys keys",
    ):
        done = release(words)
        assert done.code == 0, (words, done.said)
    verified(stick / "repo", "1")
    verified(stick / "public", "1")
    release("export stick/repo stick/public")
    assert release("export stick/repo stick/public").said.startswith("0 files written")


def test_no_key_is_left_on_a_stick_where_everybody_can_read_it(stick: Path) -> None:
    done = release("key stick/root-1.json --role root --plain")
    assert (done.code, "lets everybody read it" in done.said) == (1, True), done.said
    assert list(stick.iterdir()) == []


@pytest.mark.parametrize("way", ["cp -a", "tar", "rsync"])
def test_a_copy_of_a_repository_is_one(desk: Path, way: str) -> None:
    release("init repo --new-keys keys --plain")
    release(f"{ADD} 1 --keys keys")
    release("export repo public")
    (desk / "there").mkdir()
    script = {
        "cp -a": "cp -a repo public there/",
        "tar": "tar c repo public | tar x -C there",
        "rsync": "rsync -r repo public there/",  # neither modes, nor times, nor links
    }[way]
    if shutil.which(way.split()[0]) is None:
        pytest.skip(f"no {way} here")
    subprocess.run(["sh", "-c", script], check=True)
    verified(desk / "there/repo", "1")
    verified(desk / "there/public", "1")
    assert release("refresh there/repo --keys keys").code == 0
    assert release("add there/repo stable x86_64 --kernel vmlinuz --release 2 --keys keys").code == 0
    assert release("export there/repo there/public").code == 0
    verified(desk / "there/public", "2")
    verified(desk / "repo", "1")
