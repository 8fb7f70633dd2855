"""What can go wrong while serving."""

from phase.errors import PhaseError


class ProviderError(PhaseError):
    """The provider cannot serve."""


class RepositoryError(ProviderError):
    """A repository directory does not hold what it should."""


class DocumentError(RepositoryError):
    """A file of metadata can be read, but its content cannot be served: a mistake of its signer."""
