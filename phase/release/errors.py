"""Errors of releases.

ReleaseError
+-- ManifestError     signed, but not a release that can be booted
+-- KeysError         signing keys are missing, damaged, or too few
+-- RepositoryError   a repository on disk, or a file to be added to one
    +-- ContentError  a file of another kind than its name says, or for another architecture
"""

from phase.errors import PhaseError


class ReleaseError(PhaseError):
    """Root of every error about releases."""


class ManifestError(ReleaseError):
    """A role's metadata does not describe a release of its channel and architecture."""


class KeysError(ReleaseError):
    """Signing keys cannot be used."""


class RepositoryError(ReleaseError):
    """A repository cannot be read or written."""


class ContentError(RepositoryError):
    """A file is of another kind than its name says, or for another architecture."""
