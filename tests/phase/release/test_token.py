"""Keys on a hardware token, as PKCS#11 sees one: SoftHSM's."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from phase.release import check

MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib/pkcs11/libsofthsm2.so",
)
PIN = "482915"


class Desk:
    """A directory with a token plugged in, and `phase` to run there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "tokens").mkdir()
        (directory / "softhsm2.conf").write_text(f"directories.tokendir = {directory / 'tokens'}\n")
        self.environment = os.environ | {
            "SOFTHSM2_CONF": str(directory / "softhsm2.conf"),
            "PHASE_RELEASE_PASSPHRASE": PIN,
        }
        self.module = next(path for path in MODULES if Path(path).exists())
        words = ["--init-token", "--free", "--label", "safe", "--so-pin", "12345678", "--pin", PIN]
        subprocess.run(["softhsm2-util", *words], env=self.environment, check=True, capture_output=True)

    def __call__(self, words: str, *, code: int = 0, **environment: str) -> str:
        """Run `phase release ...`; what it said."""
        done = subprocess.run(
            [sys.executable, "-m", "phase", "release", *words.split()],
            cwd=self.directory,
            env=self.environment | environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == code, done.stdout
        return done.stdout


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_root_key_on_a_token_signs(desk: Desk) -> None:
    at = f"--module {desk.module} --token safe"
    desk(f"key root/root-1.json --role root {at}")
    stored = json.loads((desk.directory / "root/root-1.json").read_text())
    assert set(stored) == {"format", "role", "public", "token"}, "nothing private is in the file"
    others = ("targets", "release", "snapshot", "timestamp")
    for role in others:
        desk(f"key keys/{role}.json --role {role} --plain")
    publics = " ".join(
        f"--public keys/{role}.pub" for role in ("targets", "release", "snapshot", "timestamp")
    )
    desk(f"init repo --keys root --keys keys --public root/root-1.pub {publics}")
    (desk.directory / "vmlinuz").write_bytes(b"K" * 5000)
    desk("add repo stable x86_64 --kernel vmlinuz --release 1.0 --keys keys")
    root = (desk.directory / "repo/metadata/1.root.json").read_bytes()
    found = check.verify(
        desk.directory / "repo", root, channel="stable", arch="x86_64", now=datetime.now(UTC)
    )
    assert found.manifest.release == "1.0"
    named = json.loads(root)["signed"]["roles"]["root"]["keyids"]
    assert [each["keyid"] for each in json.loads(root)["signatures"]] == named


def test_a_key_that_the_token_has_already(desk: Desk) -> None:
    at = f"--module {desk.module} --token safe --object mine"
    made = desk(f"key root-1.json --role root {at}")
    assert desk(f"key other/root-1.json --role root {at} --existing") == made
    assert "is there already" in desk(f"key third/root-1.json --role root {at}", code=1)
    assert "root-1.json is there already" in desk(f"key root-1.json --role root {at}", code=1)


@pytest.mark.parametrize(
    ("words", "environment", "message"),
    [
        ("--module {module} --token lost", {}, "0 tokens called 'lost' are plugged in"),
        ("--module {module} --token safe --existing", {}, "key 'root-1' on token 'safe' is there 0 times"),
        ("--module {module} --token safe", {"PHASE_RELEASE_PASSPHRASE": "000000"}, "CKR_PIN_INCORRECT"),
        ("--module /nothing.so --token safe", {}, "cannot be used"),
    ],
)
def test_a_token_that_does_not_do(desk: Desk, words: str, environment: dict[str, str], message: str) -> None:
    said = desk(f"key root-1.json --role root {words.format(module=desk.module)}", code=1, **environment)
    assert message in said
    assert not (desk.directory / "root-1.json").exists()


def test_a_key_made_on_a_token_never_leaves_it(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    import PyKCS11 as pkcs11

    desk(f"key root-1.json --role root --module {desk.module} --token safe")
    monkeypatch.setenv("SOFTHSM2_CONF", desk.environment["SOFTHSM2_CONF"])
    library = pkcs11.PyKCS11Lib()
    library.load(desk.module)
    (slot,) = (
        slot
        for slot in library.getSlotList(tokenPresent=True)
        if library.getTokenInfo(slot).label.strip("\0 ") == "safe"
    )
    session = library.openSession(slot)
    session.login(PIN)
    (key,) = session.findObjects([(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY)])
    names = [pkcs11.CKA_EXTRACTABLE, pkcs11.CKA_SENSITIVE, pkcs11.CKA_PRIVATE, pkcs11.CKA_NEVER_EXTRACTABLE]
    assert session.getAttributeValue(key, names) == [False, True, True, True]
    assert session.getAttributeValue(key, [pkcs11.CKA_VALUE]) == [None]
    session.closeSession()
