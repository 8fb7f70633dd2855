"""Keys on a hardware token, as PKCS#11 sees one: SoftHSM's."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fixtures import artifacts
from phase.release import check, token
from phase.release.errors import KeysError
from phase.release.keys import Place

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
        self.plug_in("safe", PIN)

    def plug_in(self, label: str, pin: str) -> None:
        """A new token."""
        words = ["--init-token", "--free", "--label", label, "--so-pin", "12345678", "--pin", pin]
        subprocess.run(["softhsm2-util", *words], env=self.environment, check=True, capture_output=True)

    def refused(self, label: str) -> bool:
        """Whether a token remembers a wrong PIN."""
        code = (
            "import sys, PyKCS11 as p; l = p.PyKCS11Lib(); l.load(sys.argv[1]); "
            "i = [l.getTokenInfo(s) for s in l.getSlotList(tokenPresent=True)]; "
            "print([bool(t.flags & p.CKF_USER_PIN_COUNT_LOW) for t in i if t.label.strip() == sys.argv[2]])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, self.module, label],
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip() == "[True]"

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
    at = f"--pkcs11 {desk.module} --token safe"
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
    (desk.directory / "vmlinuz").write_bytes(artifacts.kernel())
    desk("add repo stable x86_64 --kernel vmlinuz --release 1.0 --keys keys")
    root = (desk.directory / "repo/metadata/1.root.json").read_bytes()
    found = check.verify(
        desk.directory / "repo", root, channel="stable", arch="x86_64", now=datetime.now(UTC)
    )
    assert found.manifest.release == "1.0"
    named = json.loads(root)["signed"]["roles"]["root"]["keyids"]
    assert [each["keyid"] for each in json.loads(root)["signatures"]] == named


def test_a_key_that_the_token_has_already(desk: Desk) -> None:
    at = f"--pkcs11 {desk.module} --token safe --object mine"
    made = desk(f"key root-1.json --role root {at}")
    assert desk(f"key other/root-1.json --role root {at} --existing") == made
    assert "is there already" in desk(f"key third/root-1.json --role root {at}", code=1)
    assert "root-1.json is there already" in desk(f"key root-1.json --role root {at}", code=1)


@pytest.mark.parametrize(
    ("words", "environment", "message"),
    [
        ("--pkcs11 {module} --token lost", {}, "token 'lost' is not plugged in"),
        ("--pkcs11 {module} --token safe --existing", {}, "key 'root-1' on token 'safe' is there 0 times"),
        (
            "--pkcs11 {module} --token safe",
            {"PHASE_RELEASE_PASSPHRASE": "000000"},
            "the PIN of token 'safe' is wrong",
        ),
        ("--pkcs11 /nothing.so --token safe", {}, "library '/nothing.so' is not there"),
        ("--pkcs11 /etc/passwd --token safe", {}, "'/etc/passwd' is not a PKCS#11 library"),
    ],
)
def test_a_token_that_does_not_do(desk: Desk, words: str, environment: dict[str, str], message: str) -> None:
    said = desk(f"key root-1.json --role root {words.format(module=desk.module)}", code=1, **environment)
    assert message in said
    assert not (desk.directory / "root-1.json").exists()


def test_a_key_made_on_a_token_never_leaves_it(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    import PyKCS11 as pkcs11

    desk(f"key root-1.json --role root --pkcs11 {desk.module} --token safe")
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


OTHER_PIN = "775533"
ROLES = ("targets", "snapshot", "timestamp")


@pytest.fixture
def two(desk: Desk) -> Desk:
    """The root key on one token, the release key on another; a repository with nothing in it."""
    desk.plug_in("vault", OTHER_PIN)
    desk(f"key root/root-1.json --role root --pkcs11 {desk.module} --token safe")
    desk(
        f"key signer/release.json --role release --pkcs11 {desk.module} --token vault",
        PHASE_RELEASE_PASSPHRASE=OTHER_PIN,
    )
    for role in ROLES:
        desk(f"key keys/{role}.json --role {role} --plain")
    publics = " ".join(f"--public keys/{role}.pub" for role in ROLES)
    desk(f"init repo --public root/root-1.pub --public signer/release.pub {publics} --keys root --keys keys")
    return desk


ROTATE = "rotate repo --yes --threshold root=1 --keys root --keys signer --keys keys"


def one_line(said: str) -> str:
    """What was said at the end, if it is one line with a remedy; what would be signed comes before."""
    (last,) = (line for line in said.splitlines() if not line.startswith("  "))
    return last


@pytest.mark.parametrize("command", ["sign repo --keys root --keys keys", "sign stick --keys root"])
def test_a_token_error_while_signing_is_one_line(two: Desk, command: str) -> None:
    """Where the repository is, and where a stick is signed."""
    two("rotate repo --yes --threshold root=1 --keys keys")
    two("sign repo --export stick")

    def said(**environment: str) -> str:
        lines = two(command, code=1, **environment).splitlines()
        (last,) = (line for line in lines if line.startswith("phase: "))
        assert not any("Traceback" in line for line in lines)
        return last

    assert "the PIN of token 'safe' is wrong" in said(PHASE_RELEASE_PASSPHRASE="000000")
    assert two.refused("safe")
    (two.directory / "broken").mkdir()
    (two.directory / "broken/PyKCS11.py").write_text("raise ImportError('no such library')")
    path = f"{two.directory / 'broken'}:{os.environ.get('PYTHONPATH', '')}"
    # Not by an extra: the package index's `phase` is another project.
    assert said(PYTHONPATH=path).endswith("PyKCS11 is not installed. pip install pykcs11")
    (two.directory / "tokens").rename(two.directory / "away")
    (two.directory / "tokens").mkdir()
    assert "token 'safe' is not plugged in" in said()
    (two.directory / "tokens").rmdir()
    (two.directory / "away").rename(two.directory / "tokens")
    key = two.directory / "root/root-1.json"
    stored = json.loads(key.read_bytes())
    stored["token"]["module"] = "/nothing.so"
    key.write_text(json.dumps(stored))
    assert "'/nothing.so' is not there" in said()


def test_each_token_has_its_own_pin(two: Desk) -> None:
    said = one_line(two(ROTATE, code=1))
    assert "the PIN of token" in said
    assert "--pin-file" in said
    assert not two.refused("safe")
    assert not two.refused("vault"), "the other token's PIN was tried on it"
    for label, pin in (("safe", PIN), ("vault", OTHER_PIN)):
        (two.directory / label).write_text(f"{pin}\n")
    pins = "--pin-file safe=safe --pin-file vault=vault"
    (two.directory / "vmlinuz").write_bytes(artifacts.kernel())
    said = two(f"add repo stable x86_64 --kernel vmlinuz --release 1.0 --keys signer --keys keys {pins}")
    assert "published in repo" in said
    assert "published in repo" in two(f"{ROTATE} {pins}")
    assert "is not TOKEN=FILE" in two(f"{ROTATE} --pin-file safe", code=2)


def test_a_passphrase_of_a_key_is_not_tried_as_a_pin(two: Desk) -> None:
    words = "correct horse"
    two("key sealed/targets.json --role targets --cost interactive", PHASE_RELEASE_PASSPHRASE=words)
    command = "rotate repo --yes --public sealed/targets.pub --keys root --keys sealed --keys keys"
    said = two(command, code=1, PHASE_RELEASE_PASSPHRASE=words)
    assert "the passphrase may be that of key sealed/targets.json" in one_line(said)
    assert not two.refused("safe")


class Session:
    """A session that counts the PINs it was given, and refuses each."""

    def __init__(self) -> None:
        self.tried: list[str] = []

    def login(self, pin: str) -> None:
        import PyKCS11 as pkcs11

        self.tried.append(pin)
        raise pkcs11.PyKCS11Error(pkcs11.CKR_PIN_INCORRECT)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("CKF_USER_PIN_FINAL_TRY", "locks itself if the next PIN is wrong, so none was tried"),
        ("CKF_USER_PIN_LOCKED", "is locked"),
    ],
)
def test_the_last_try_of_a_token_is_never_taken(flag: str, message: str) -> None:
    import PyKCS11 as pkcs11

    session, place = Session(), Place("/module.so", flag, "root-1")
    with pytest.raises(KeysError, match=message):
        token.log_in(pkcs11, session, getattr(pkcs11, flag), place, PIN)
    assert session.tried == []


def test_a_token_that_has_refused_its_pin_is_not_asked_again() -> None:
    import PyKCS11 as pkcs11

    session, place = Session(), Place("/module.so", "refuses", "root-1")
    for _ in range(3):
        with pytest.raises(KeysError, match="token 'refuses'"):
            token.log_in(pkcs11, session, 0, place, PIN)
    assert session.tried == [PIN]


@pytest.fixture
def here(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Where a key may be on a token of this process."""
    monkeypatch.setenv("SOFTHSM2_CONF", desk.environment["SOFTHSM2_CONF"])
    monkeypatch.setattr(token, "_REFUSED", set())
    return Place(desk.module, "safe", "mine")


def test_a_key_is_made_once_found_and_signs(here: Place) -> None:
    with pytest.raises(KeysError, match="there 0 times"):
        token.find(here, PIN)
    public = token.make(here, PIN)
    assert len(public) == 64
    with pytest.raises(KeysError, match="is there already"):
        token.make(here, PIN)
    assert token.make(Place(here.module, here.token, "other"), PIN) != public
    assert token.find(here, PIN) == public
    signer = token.TokenSigner(here, public, lambda: PIN)
    assert signer.public_hex == public
    signature = signer.sign(b"payload")
    signer.public_key.verify_signature(signature, b"payload")
    assert signature.keyid == signer.public_key.keyid
    with pytest.raises(KeysError, match="signs with another key than 00"):
        token.TokenSigner(here, "00" * 32, lambda: PIN).sign(b"payload")
    with pytest.raises(KeysError, match="is not a key file"):
        token.TokenSigner.from_priv_key_uri("token:x", signer.public_key)


def test_a_label_that_two_tokens_have_names_none(here: Place, desk: Desk) -> None:
    token.make(here, PIN)
    desk.plug_in("vault", OTHER_PIN)
    assert token.find(here, PIN), "another label beside it is no reason"
    with pytest.raises(KeysError, match=r"sees .*'safe'.* 'vault'|sees .*'vault'.* 'safe'"):
        token.find(Place(here.module, "lost", "mine"), PIN)
    desk.plug_in("safe", PIN)
    with pytest.raises(KeysError, match="2 tokens called 'safe' are plugged in"):
        token.find(here, PIN)


def test_a_refused_pin_is_not_tried_again_in_this_process(here: Place, desk: Desk) -> None:
    with pytest.raises(KeysError, match="the PIN of token 'safe' is wrong"):
        token.make(here, "000000")
    assert desk.refused("safe")
    with pytest.raises(KeysError, match="is not asked again"):
        token.make(here, PIN)


def test_a_key_that_is_not_for_signatures_of_ours_is_refused(here: Place) -> None:
    import PyKCS11 as pkcs11

    with token._session(here, PIN, write=True) as (_, session):
        kind = [(pkcs11.CKA_TOKEN, True), (pkcs11.CKA_LABEL, here.object)]
        curve = bytes.fromhex("06082a8648ce3d030107")  # P-256
        session.generateKeyPair(
            [*kind, (pkcs11.CKA_EC_PARAMS, curve), (pkcs11.CKA_VERIFY, True)],
            [*kind, (pkcs11.CKA_SIGN, True)],
            mecha=pkcs11.MechanismECGENERATEKEYPAIR,
        )
    with pytest.raises(KeysError, match="is not an Ed25519 key"):
        token.find(here, PIN)
    with pytest.raises(KeysError, match="signs with another key"):
        token.TokenSigner(here, "00" * 32, lambda: PIN).sign(b"payload")


@pytest.mark.parametrize(
    ("module", "message"), [("/nothing.so", "is not there"), ("/etc/passwd", "is not a PKCS#11 library")]
)
def test_a_library_that_is_none_is_named(module: str, message: str) -> None:
    with pytest.raises(KeysError, match=message):
        token.find(Place(module, "safe", "mine"), PIN)
