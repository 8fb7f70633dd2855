"""The client side of trust: decides what to believe, and does no I/O of its own.

Any part of Phase may use it. It imports no TLS, no event loop and no cryptography but PyNaCl.
"""

from phase.trust.client import ANY_AGE, Refreshed, held, refresh
from phase.trust.errors import (
    ExpiredError,
    FormatError,
    NotFoundError,
    PinError,
    RollbackError,
    SignatureError,
    SizeError,
    TrustError,
    WrongTargetError,
)
from phase.trust.floor import Floor
from phase.trust.state import Policy, TrustedState

__all__ = [
    "ANY_AGE",
    "ExpiredError",
    "Floor",
    "FormatError",
    "NotFoundError",
    "PinError",
    "Policy",
    "Refreshed",
    "RollbackError",
    "SignatureError",
    "SizeError",
    "TrustError",
    "TrustedState",
    "WrongTargetError",
    "held",
    "refresh",
]
