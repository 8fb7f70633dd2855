"""Fetches a verified file from many providers. For the seed and for every other client.

Synchronous, with threads to read several providers at once. Imports neither TLS nor asyncio.
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
