"""Signed HTTP requests, as docs/develop/gateway.md has them: to make one, and to check one."""

import base64
import hashlib
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

from phase.dsse import SigningIdentity
from phase.node.admission import Admission
from phase.node.errors import RefusedError
from phase.peer.messages import Reason

#: Seconds that the clocks of client and node may differ.
CLOCK_SECONDS = 300
#: Nonces that are remembered, of one client and of all. A client that has few is taken all the same, up to
#: twice as many: so that those who ask a lot do not keep out the others.
CLIENT_NONCES, MAX_NONCES, FEW_NONCES = 100_000, 300_000, 2_000
_KEY_BYTES = 32
_KEY, _NONCE, _SIGNATURE = (re.compile(f"[0-9a-f]{{{count}}}") for count in (64, 32, 128))
_TIME = re.compile("[0-9]{1,12}")
_DIGEST = re.compile("sha-256=:([A-Za-z0-9+/]{43})=:")


class UnsignedError(RefusedError):
    """A request has no signature, or one that does not hold."""

    def __init__(self, detail: str) -> None:
        super().__init__(Reason.NOT_AUTHORISED, detail)


def text(method: str, target: str, *, node: str, key: str, at: str, nonce: str, sha256: str) -> bytes:
    """What a signature covers.

    Args:
        method: in capital letters.
        target: path and query, as they are sent.
        node: key of the node, hex.
        key: of the client, hex.
        at: seconds since the epoch, decimal digits.
        nonce: 32 hex digits.
        sha256: of the body, hex.
    """
    return "\n".join(("phase-request-v1", method, target, node, key, at, nonce, sha256)).encode()


def digest(headers: Mapping[str, str]) -> str | None:
    """The SHA-256 that a request says of its body (RFC 9530), hex; None if it says none.

    Raises:
        UnsignedError: it is malformed.
    """
    value = headers.get("Content-Digest")
    if value is None:
        return None
    found = _DIGEST.fullmatch(value)
    if found is None:
        raise UnsignedError("the header field Content-Digest is not sha-256=:BASE64:")
    return base64.b64decode(found[1] + "=").hex()


def sign(
    identity: SigningIdentity, method: str, target: str, *, node: str, body: bytes = b""
) -> dict[str, str]:
    """The header fields that sign a request.

    Args:
        identity: the client's.
        method: in capital letters.
        target: path and query.
        node: key of the node, hex.
        body: of the request.
    """
    at, nonce = str(int(time.time())), os.urandom(16).hex()
    covered = text(
        method,
        target,
        node=node,
        key=identity.public_key,
        at=at,
        nonce=nonce,
        sha256=hashlib.sha256(body).hexdigest(),
    )
    return {
        "Phase-Key": identity.public_key,
        "Phase-Time": at,
        "Phase-Nonce": nonce,
        "Phase-Signature": identity.sign(covered).hex(),
    }


class Checker:
    """Decides whether a request is from a client that may use this node, and is not a repetition.

    Args:
        node: this node's key, hex.
        admission: who may.
        clock: seconds since the epoch.
    """

    def __init__(self, node: str, admission: Admission, clock: Callable[[], float] = time.time) -> None:
        self._node, self._admission, self._clock = node, admission, clock
        #: Nonces of earlier processes are not known: what was signed before this one began is refused.
        self._began = int(clock())
        self._nonces = _Nonces()

    def look(self, headers: Mapping[str, str]) -> str:
        """Refuse a request that cannot be good, before its body is read.

        Args:
            headers: its fields.

        Returns:
            The key that it claims.

        Raises:
            UnsignedError: it has no signature, or is of another time.
            RefusedError: its key is not allowed.
        """
        fields = _fields(headers)
        if why := self._admission.refusal(fields.key):
            raise RefusedError(Reason.NOT_AUTHORISED, why)
        now, at = self._clock(), int(fields.at)
        if abs(now - at) > CLOCK_SECONDS:
            raise UnsignedError(f"Phase-Time is {at - now:+.0f} s off this node's clock")
        if at < self._began:
            raise UnsignedError(f"Phase-Time is {self._began - at} s before this node began")
        return fields.key

    def check(self, method: str, target: str, headers: Mapping[str, str], sha256: str) -> str:
        """Check a request.

        Args:
            method: as it came.
            target: path and query, as they came.
            headers: its fields.
            sha256: of its body, hex.

        Returns:
            The client's key.

        Raises:
            UnsignedError: it has no signature that holds, or is a repetition.
            RefusedError: it is signed by a key that is not allowed.
        """
        self.look(headers)
        key, at, nonce, signature = _fields(headers)
        covered = text(method, target, node=self._node, key=key, at=at, nonce=nonce, sha256=sha256)
        try:
            crypto_sign_open(bytes.fromhex(signature) + covered, bytes.fromhex(key))
        except (BadSignatureError, ValueError) as error:
            raise UnsignedError("Phase-Signature does not hold for this request") from error
        self._nonces.once(key, int(at), nonce, self._clock())
        return key


class _Nonces:
    """Those that were used, as long as a request with them would still be taken."""

    def __init__(self) -> None:
        #: By the time of their requests: client and nonce.
        self._at: dict[int, set[bytes]] = {}
        self._of: Counter[bytes] = Counter()
        self._total = self._oldest = 0

    def once(self, key: str, at: int, nonce: str, now: float) -> None:
        """Remember one.

        Raises:
            UnsignedError: it was used before.
            RefusedError: there are too many.
        """
        self._sweep(int(now) - CLOCK_SECONDS)
        client = bytes.fromhex(key)
        entry = client + bytes.fromhex(nonce)
        # The same nonce with another time is another request, signed anew.
        if entry in self._at.get(at, ()):
            raise UnsignedError("Phase-Nonce was used before")
        mine, total = self._of[client], self._total
        if mine >= CLIENT_NONCES or (total >= MAX_NONCES and mine >= FEW_NONCES) or total >= 2 * MAX_NONCES:
            raise RefusedError(Reason.QUOTA, "too many requests in the last minutes")
        self._at.setdefault(at, set()).add(entry)
        self._of[client] += 1
        self._total += 1

    def _sweep(self, oldest: int) -> None:
        """Forget what is older, once a second."""
        if oldest == self._oldest:
            return
        self._oldest = oldest
        for at in [at for at in self._at if at < oldest]:
            gone = self._at.pop(at)
            self._of.subtract(entry[:_KEY_BYTES] for entry in gone)
            self._total -= len(gone)
        self._of = +self._of  # without those of zero


class _Fields(NamedTuple):
    """The header fields that sign a request, well-formed."""

    key: str
    at: str
    nonce: str
    signature: str


def _fields(headers: Mapping[str, str]) -> _Fields:
    found = []
    for name, pattern in (
        ("Phase-Key", _KEY),
        ("Phase-Time", _TIME),
        ("Phase-Nonce", _NONCE),
        ("Phase-Signature", _SIGNATURE),
    ):
        value = headers.get(name, "")
        if not pattern.fullmatch(value):
            raise UnsignedError(f"the header field {name} is missing or malformed")
        found.append(value)
    return _Fields(*found)
