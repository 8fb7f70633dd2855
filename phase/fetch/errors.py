"""Errors of fetching.

FetchError
+-- UrlError            not an address of a provider
+-- ProviderFailedError one provider could not be used; names it
|   +-- NoSuchFileError     it has no such file
|   +-- ProtocolError     it does not keep to HTTP, or to our bounds
|   +-- StalledError      it is too slow, or the time is up
+-- VerificationError   bytes that are not what was signed
+-- ExhaustedError      no provider is left
"""

from phase.errors import PhaseError


class FetchError(PhaseError):
    """Something could not be fetched."""


class UrlError(FetchError):
    """A provider's address cannot be used."""


class ProviderFailedError(FetchError):
    """A provider could not be used for this; another may."""

    def __init__(self, url: str, what: str, *, hint: str = "") -> None:
        self.url = url
        super().__init__(f"{url}: {what}", hint=hint)


class NoSuchFileError(ProviderFailedError):
    """The provider says that it has no such file."""


class ProtocolError(ProviderFailedError):
    """The provider's answer breaks the rules of HTTP, or does not fit the request."""


class StalledError(ProviderFailedError):
    """The provider is too slow to go on with."""


class VerificationError(FetchError):
    """The bytes that arrived are not the signed ones. None of them was written."""


class ExhaustedError(FetchError):
    """Every provider failed."""
