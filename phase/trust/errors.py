"""Why metadata was refused.

TrustError
+-- NotFoundError      the provider has no such file
+-- FormatError        not TUF metadata, or not of the expected role
+-- SizeError          longer than may be read, or than was signed for
+-- SignatureError     too few of the role's keys have signed
+-- ExpiredError       signed for a time that is over
+-- RollbackError      older than the version that was trusted before
+-- PinError           not the version or the bytes that another role has signed for
+-- WrongTargetError   signed, but for another channel, architecture or path
"""

from phase.errors import PhaseError


class TrustError(PhaseError):
    """Root: a file was refused, and nothing in it was used."""


class NotFoundError(TrustError):
    """The provider has no such file. For root N+1 that is the usual answer."""


class FormatError(TrustError):
    """The bytes are not metadata of the expected role."""


class SizeError(TrustError):
    """The file is longer than its role may be, or does not have the signed length."""


class SignatureError(TrustError):
    """Fewer different keys have signed than the delegating role asks for."""


class ExpiredError(TrustError):
    """The metadata has expired."""


class RollbackError(TrustError):
    """A version is lower than one that was trusted before."""


class PinError(TrustError):
    """Version or hash differs from what the role above has signed: parts of different releases."""


class WrongTargetError(TrustError):
    """Signed, but not as a release for this channel and architecture."""
