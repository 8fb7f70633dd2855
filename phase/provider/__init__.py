"""`phase serve`: a repository directory over HTTP, advertised on the local network.

A provider is never trusted and holds no key. For the command line and the booted system.
"""

from phase.provider.app import make_app
from phase.provider.errors import ProviderError, RepositoryError
from phase.provider.server import serve

__all__ = ["ProviderError", "RepositoryError", "make_app", "serve"]
