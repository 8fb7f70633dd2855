"""What can go wrong with a release.

ReleaseError
+-- ManifestError     signed, and yet nothing that can be booted
+-- KeysError         signing keys missing, damaged, or too few
+-- RepositoryError   a repository on disk, or something to be put into one
    +-- ContentError  a file that is not what it is called, or for another architecture
"""

from phase.errors import PhaseError


class ReleaseError(PhaseError):
    """Root of every error about releases."""


class ManifestError(ReleaseError):
    """A role's metadata describes no release of its channel and architecture."""


class KeysError(ReleaseError):
    """Signing keys cannot be used."""


class RepositoryError(ReleaseError):
    """A repository cannot be read or written."""


class ContentError(RepositoryError):
    """A file is not what it is called, or for another architecture."""
