"""Many providers, one verified file. For the seed and for everything that fetches.

Synchronous; threads where several providers are read at once. Imports no TLS, no asyncio.
"""

from phase.fetch.artifact import FetchReport, Wanted, fetch_artifact
from phase.fetch.client import Client
from phase.fetch.errors import (
    ExhaustedError,
    FetchError,
    NoSuchFileError,
    ProtocolError,
    ProviderFailedError,
    StalledError,
    UrlError,
    VerificationError,
)
from phase.fetch.progress import Progress

__all__ = [
    "Client",
    "ExhaustedError",
    "FetchError",
    "FetchReport",
    "NoSuchFileError",
    "Progress",
    "ProtocolError",
    "ProviderFailedError",
    "StalledError",
    "UrlError",
    "VerificationError",
    "Wanted",
    "fetch_artifact",
]
