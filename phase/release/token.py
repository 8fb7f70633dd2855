"""Keys that never leave a hardware token: reached by PKCS#11 (extra `pkcs11`), signing Ed25519 there.

securesystemslib's own signer for tokens makes ECDSA signatures, which a seed would need OpenSSL to check.
Source: PKCS#11 3.0 (CKM_EDDSA, CKK_EC_EDWARDS).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from securesystemslib.signer import Key, SecretsHandler, Signature

from phase.errors import PhaseError
from phase.release.errors import KeysError
from phase.release.keys import Place, ReleaseSigner, public_key
from phase.trust.keys import NaclKey

_CKM_EC_EDWARDS_KEY_PAIR_GEN, _CKM_EDDSA, _CKK_EC_EDWARDS = 0x1055, 0x1057, 0x40
#: PrintableString "edwards25519", and what begins an OCTET STRING of 32 bytes (DER).
_CURVE, _POINT = bytes.fromhex("130c656477617264733235353139"), b"\x04\x20"


class TokenSigner(ReleaseSigner):
    """Signs TUF metadata with a key on a token, which is asked for only then.

    Args:
        place: of the key.
        public: its public half, 64 hex digits.
        pin: gives the token's PIN.
    """

    def __init__(self, place: Place, public: str, pin: Callable[[], str]) -> None:
        self._place = place
        self._public = public_key(public)
        self._pin = pin

    @property
    def public_key(self) -> NaclKey:
        """The public half."""
        return self._public

    def sign(self, payload: bytes) -> Signature:
        """Sign canonical metadata.

        Raises:
            KeysError: the token is not there, refuses, or holds another key by now.
        """
        with _session(self._place, self._pin()) as (pkcs11, session):
            key = _one(pkcs11, session, pkcs11.CKO_PRIVATE_KEY, self._place)
            made = bytes(session.sign(key, payload, pkcs11.Mechanism(_CKM_EDDSA, None)))
        signature = Signature(self._public.keyid, made.hex())
        try:
            self._public.verify_signature(signature, payload)
        except Exception as error:  # whatever the key's kind says
            raise KeysError(f"{_name(self._place)} signs with another key than {self.public_hex}") from error
        return signature

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> "TokenSigner":
        """Refused: keys of this kind are named in files, see `phase.release.keys.load`.

        Raises:
            KeysError: always.
        """
        raise KeysError(f"{priv_key_uri[:80]!r} is not a key file", hint="Use phase.release.keys.load.")


def find(place: Place, pin: str) -> str:
    """The public half of a key on a token: 64 hex digits.

    Raises:
        KeysError: there is no such key, or it is not an Ed25519 one.
    """
    with _session(place, pin) as (pkcs11, session):
        return _public(pkcs11, session, place)


def make(place: Place, pin: str) -> str:
    """Make a key on a token, which never gives it away; returns the public half, 64 hex digits.

    Raises:
        KeysError: the token has a key of this name, or cannot make one of this kind.
    """
    with _session(place, pin) as (pkcs11, session):
        wanted = [(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY), (pkcs11.CKA_LABEL, place.object)]
        if session.findObjects(wanted):
            raise KeysError(f"{_name(place)} is there already", hint="Keys are never overwritten.")
        shared = [
            (pkcs11.CKA_TOKEN, True),
            (pkcs11.CKA_LABEL, place.object),
            (pkcs11.CKA_KEY_TYPE, _CKK_EC_EDWARDS),
        ]
        session.generateKeyPair(
            [*shared, (pkcs11.CKA_EC_PARAMS, _CURVE), (pkcs11.CKA_VERIFY, True)],
            [
                *shared,
                (pkcs11.CKA_SIGN, True),
                (pkcs11.CKA_PRIVATE, True),
                (pkcs11.CKA_SENSITIVE, True),
                (pkcs11.CKA_EXTRACTABLE, False),
            ],
            mecha=pkcs11.Mechanism(_CKM_EC_EDWARDS_KEY_PAIR_GEN, None),
        )
        return _public(pkcs11, session, place)


def _public(pkcs11: Any, session: Any, place: Place) -> str:
    found = _one(pkcs11, session, pkcs11.CKO_PUBLIC_KEY, place)
    kind, point = session.getAttributeValue(found, [pkcs11.CKA_KEY_TYPE, pkcs11.CKA_EC_POINT])
    raw = bytes(point or ()).removeprefix(_POINT)
    if kind != _CKK_EC_EDWARDS or len(raw) != 32:
        raise KeysError(f"{_name(place)} is not an Ed25519 key", hint="No other kind can sign for a seed.")
    return raw.hex()


def _one(pkcs11: Any, session: Any, kind: int, place: Place) -> Any:
    found = session.findObjects([(pkcs11.CKA_CLASS, kind), (pkcs11.CKA_LABEL, place.object)])
    if len(found) != 1:
        raise KeysError(f"{_name(place)} is there {len(found)} times", hint="Labels must tell keys apart.")
    return found[0]


@contextmanager
def _session(place: Place, pin: str) -> Iterator[tuple[Any, Any]]:
    try:
        import PyKCS11 as pkcs11
    except ImportError as error:
        raise KeysError(
            f"{_name(place)} is on a token, and PyKCS11 is not installed", hint="pip install 'phase[pkcs11]'"
        ) from error
    try:
        library = pkcs11.PyKCS11Lib()
        library.load(place.module)
        slots = [
            slot
            for slot in library.getSlotList(tokenPresent=True)
            if library.getTokenInfo(slot).label.strip("\0 ") == place.token
        ]
        if len(slots) != 1:
            raise KeysError(
                f"{len(slots)} tokens called {place.token!r} are plugged in, as {place.module} sees it"
            )
        session = library.openSession(slots[0], pkcs11.CKF_SERIAL_SESSION | pkcs11.CKF_RW_SESSION)
        try:
            session.login(pin)
            yield pkcs11, session
        finally:
            # Its login ends with it.
            session.closeSession()
    except PhaseError:
        raise
    except pkcs11.PyKCS11Error as error:
        raise KeysError(f"{_name(place)} cannot be used: {error}") from error


def _name(place: Place) -> str:
    return f"key {place.object!r} on token {place.token!r}"
