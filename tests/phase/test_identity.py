"""A node's identity is made once, and never readable by others."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from nacl.signing import VerifyKey

from phase.identity import Identity, IdentityError


def test_it_is_made_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "var" / "state" / "identity.json"
    first = Identity.load_or_create(path)
    assert Identity.load_or_create(path).public_key == first.public_key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert os.listdir(path.parent) == ["identity.json"]


def test_its_signature_holds_under_its_public_key() -> None:
    identity = Identity.ephemeral()
    signature = identity.sign(b"hello")
    assert VerifyKey(bytes.fromhex(identity.public_key)).verify(b"hello", signature) == b"hello"
    assert (identity.node_id, identity.id8) == (identity.public_key, identity.public_key[:8])


def test_the_seed_decides_the_key() -> None:
    # RFC 8032, section 7.1, test 1.
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert Identity.from_seed(seed).public_key == public


def test_processes_that_start_at_once_agree(tmp_path: Path) -> None:
    path = tmp_path / "identity.json"
    program = (
        "import sys; from pathlib import Path; from phase.identity import Identity; sys.stdin.read();"
        f"print(Identity.load_or_create(Path({str(path)!r})).public_key)"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    found = {process.communicate()[0] for process in started}
    assert len(found) == 1
    assert os.listdir(tmp_path) == ["identity.json"]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_a_file_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "identity.json"
    Identity.load_or_create(path)
    path.chmod(mode)
    with pytest.raises(IdentityError, match=f"mode {mode:04o}.*chmod 600"):
        Identity.load_or_create(path)


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    Identity.load_or_create(tmp_path / "real.json")
    (tmp_path / "identity.json").symlink_to(tmp_path / "real.json")
    with pytest.raises(IdentityError, match="cannot be read"):
        Identity.load_or_create(tmp_path / "identity.json")


@pytest.mark.parametrize("name", ["", "directory"])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "identity.json"
    path.mkdir(mode=0o700) if name else os.mkfifo(path, 0o600)
    with pytest.raises(IdentityError):
        Identity.load_or_create(path)


@pytest.mark.parametrize(
    "change", [{"seed": "00"}, {"seed": "zz" * 32}, {"seed": "00" * 32}, {"format": "v2"}, {"extra": "1"}]
)
def test_a_damaged_file_is_refused_and_kept(tmp_path: Path, change: dict[str, str]) -> None:
    path = tmp_path / "identity.json"
    Identity.load_or_create(path)
    damaged = json.dumps(json.loads(path.read_text()) | change)
    path.write_text(damaged)
    with pytest.raises(IdentityError, match="damaged"):
        Identity.load_or_create(path)
    assert path.read_text() == damaged


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(IdentityError, match=r"identity .* cannot be"):
        Identity.load_or_create(tmp_path / "file" / "identity.json")


def _owned_by(monkeypatch: pytest.MonkeyPatch, user: int) -> None:
    """Let open files belong to a user: to change it really, one must be root."""
    real = os.fstat
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "fstat", lambda fd: os.stat_result([*real(fd)[:4], user, *real(fd)[5:]]))


@pytest.mark.parametrize("user", [1000, 0])
def test_a_file_of_this_user_or_of_root_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int
) -> None:
    made = Identity.load_or_create(tmp_path / "identity.json")
    _owned_by(monkeypatch, user)
    assert Identity.load(tmp_path / "identity.json").public_key == made.public_key


@pytest.mark.parametrize("user", [1, 1001])
def test_a_file_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int
) -> None:
    Identity.load_or_create(tmp_path / "identity.json")
    _owned_by(monkeypatch, user)
    with pytest.raises(IdentityError, match=f"belongs to user {user}, not to 1000"):
        Identity.load_or_create(tmp_path / "identity.json")


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    Identity.load_or_create(tmp_path / "identity.json")
    before = os.listdir("/proc/self/fd")
    Identity.load(tmp_path / "identity.json")
    (tmp_path / "identity.json").chmod(0o644)
    with pytest.raises(IdentityError):
        Identity.load(tmp_path / "identity.json")
    assert os.listdir("/proc/self/fd") == before
