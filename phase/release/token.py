"""Signs with Ed25519 keys that never leave a hardware token, through PKCS#11 (extra `pkcs11`).

securesystemslib's own signer for tokens makes ECDSA signatures, which a seed would need OpenSSL to check.
Source: PKCS#11 3.0 (CKM_EDDSA, CKK_EC_EDWARDS).
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from securesystemslib.signer import Key, SecretsHandler, Signature

from phase.errors import PhaseError
from phase.release.errors import KeysError
from phase.release.signer import Place, ReleaseSigner, public_key
from phase.trust.keys import NaclKey

_CKM_EC_EDWARDS_KEY_PAIR_GEN, _CKM_EDDSA, _CKK_EC_EDWARDS = 0x1055, 0x1057, 0x40
#: PrintableString "edwards25519", and the start of an OCTET STRING of 32 bytes (DER).
_CURVE, _POINT = bytes.fromhex("130c656477617264733235353139"), b"\x04\x20"
#: What to do about errors of tokens.
_HINTS = {
    "CKR_TOKEN_NOT_PRESENT": "Plug the token in again.",
    "CKR_DEVICE_REMOVED": "Plug the token in again.",
    "CKR_SLOT_ID_INVALID": "Plug the token in again.",
    "CKR_SESSION_HANDLE_INVALID": "Plug the token in again.",
    "CKR_DEVICE_ERROR": "Take the token out, plug it in again, and try once more.",
    "CKR_MECHANISM_INVALID": "The token must sign Ed25519 (CKM_EDDSA); one for ECDSA only does not fit.",
    "CKR_CURVE_NOT_SUPPORTED": "The token must sign Ed25519 (CKM_EDDSA); one for ECDSA only does not fit.",
    "CKR_KEY_FUNCTION_NOT_PERMITTED": "The key on the token was made for something else; make another.",
    "CKR_TOKEN_WRITE_PROTECTED": "The token takes no new keys; lift its write protection.",
    "CKR_DEVICE_MEMORY": "The token is full; remove a key from it that is not needed any more.",
    "CKR_USER_PIN_NOT_INITIALIZED": "Set the token's PIN with its own tool first.",
    "CKR_PIN_EXPIRED": "Change the token's PIN with its own tool.",
}
#: Tokens that have refused a PIN in this process: (module, label).
_REFUSED: set[tuple[str, str]] = set()


class TokenSigner(ReleaseSigner):
    """Signs TUF metadata with a key on a token, which is needed only then.

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
            KeysError: the token is not plugged in, refuses, or has another key now.
        """
        with _session(self._place, self._pin()) as (pkcs11, session):
            key = _one(pkcs11, session, pkcs11.CKO_PRIVATE_KEY, self._place)
            made = bytes(session.sign(key, payload, pkcs11.Mechanism(_CKM_EDDSA, None)))
        signature = Signature(self._public.keyid, made.hex())
        try:
            self._public.verify_signature(signature, payload)
        except Exception as error:  # each kind of key raises its own
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
    with _session(place, pin, write=True) as (pkcs11, session):
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
def _session(place: Place, pin: str, *, write: bool = False) -> Iterator[tuple[Any, Any]]:
    """A session on the token, logged in; its login ends with it."""
    try:
        import PyKCS11 as pkcs11
    except ImportError as error:
        raise KeysError(
            f"{_name(place)} is on a token, and PyKCS11 is not installed", hint="pip install pykcs11"
        ) from error
    try:
        library = _library(pkcs11, place)
        slot = _slot(library, place)
        flags = pkcs11.CKF_SERIAL_SESSION | (pkcs11.CKF_RW_SESSION if write else 0)
        session = library.openSession(slot, flags)
        try:
            log_in(pkcs11, session, library.getTokenInfo(slot).flags, place, pin)
            yield pkcs11, session
        finally:
            # The session of a token that was pulled out has ended already.
            with suppress(pkcs11.PyKCS11Error):
                session.closeSession()
    except PhaseError:
        raise
    except pkcs11.PyKCS11Error as error:
        hints = {getattr(pkcs11, name): hint for name, hint in _HINTS.items()}
        raise KeysError(
            f"{_name(place)} cannot be used: {error}", hint=hints.get(error.value, "")
        ) from error


def _library(pkcs11: Any, place: Place) -> Any:
    """The token's PKCS#11 library, loaded."""
    hint = f"Install the token's library, or correct the path of {_name(place)} in its file."
    # Check first, because the loader would print lines of its own.
    if os.path.isabs(place.module) and not os.path.isfile(place.module):
        raise KeysError(f"the PKCS#11 library {place.module!r} is not there", hint=hint)
    library = pkcs11.PyKCS11Lib()
    try:
        library.load(place.module)
    except pkcs11.PyKCS11Error as error:
        raise KeysError(f"{place.module!r} is not a PKCS#11 library of this machine", hint=hint) from error
    return library


def _slot(library: Any, place: Place) -> Any:
    """The slot that the token is plugged into."""
    there = [
        (library.getTokenInfo(slot).label.strip("\0 "), slot)
        for slot in library.getSlotList(tokenPresent=True)
    ]
    slots = [slot for label, slot in there if label == place.token]
    if not slots:
        others = ", ".join(repr(label) for label, _ in there) or "no token"
        raise KeysError(
            f"token {place.token!r} is not plugged in; {place.module!r} sees {others}", hint="Plug it in."
        )
    if len(slots) > 1:
        raise KeysError(
            f"{len(slots)} tokens called {place.token!r} are plugged in", hint="Plug in only one of them."
        )
    return slots[0]


def log_in(pkcs11: Any, session: Any, flags: int, place: Place, pin: str) -> None:
    """Log in without the risk that a token locks itself: try a wrong PIN once, and never use the last try.

    Args:
        pkcs11: the module PyKCS11.
        session: an open session.
        flags: of the token at this moment.
        place: of the key.
        pin: the PIN.

    Raises:
        KeysError: it was refused, or not tried.
    """
    token = f"token {place.token!r}"
    unlock = "Its security officer's PIN and the token's own tool unlock it."
    if flags & pkcs11.CKF_USER_PIN_LOCKED:
        raise KeysError(f"{token} is locked: its PIN was wrong too often", hint=unlock)
    if flags & pkcs11.CKF_USER_PIN_FINAL_TRY:
        raise KeysError(
            f"{token} locks itself if the next PIN is wrong, so none was tried",
            hint="Log in once with the token's own tool; a right PIN gives it its tries back.",
        )
    known = (place.module, place.token)
    if known in _REFUSED:
        raise KeysError(f"{token} has refused its PIN, and is not asked again")
    try:
        session.login(pin)
    except pkcs11.PyKCS11Error as error:
        if error.value == pkcs11.CKR_PIN_LOCKED:
            raise KeysError(f"{token} is locked: its PIN was wrong too often", hint=unlock) from error
        if error.value not in (pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE):
            raise
        _REFUSED.add(known)
        raise KeysError(
            f"the PIN of {token} is wrong",
            hint="It was tried once. Tokens lock themselves after a few wrong ones.",
        ) from error


def _name(place: Place) -> str:
    return f"key {place.object!r} on token {place.token!r}"
