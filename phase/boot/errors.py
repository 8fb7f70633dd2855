"""What can go wrong between a verified release and the running system."""

from phase.errors import PhaseError


class BootError(PhaseError):
    """The seed cannot go on."""


class NetworkError(BootError):
    """No network came up."""


class CacheError(BootError):
    """What a seed keeps between boots cannot be used; the boot goes on without."""


class HandoffError(BootError):
    """The kernel refused to load or start the verified release."""


class LockedDownError(HandoffError):
    """The kernel is locked down, as under Secure Boot, and does not start this release."""
