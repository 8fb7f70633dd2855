"""What can go wrong while serving."""

from phase.errors import PhaseError


class ProviderError(PhaseError):
    """The provider cannot serve."""


class RepositoryError(ProviderError):
    """A repository directory does not hold what it should."""
