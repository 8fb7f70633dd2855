"""What the release is, from the first of many providers that can prove it.

Each provider is asked on its own: files of two providers need not fit together, and one that lies
or says nothing must not keep a machine from one that is honest. Imports the trust workflow.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from time import monotonic
from typing import NamedTuple

from phase import trust
from phase.errors import PhaseError
from phase.fetch.client import Client
from phase.fetch.errors import ExhaustedError

MAX_PROVIDERS = 16


class Proven(NamedTuple):
    """A release, and who could prove it."""

    url: str
    release: trust.Refreshed


def refresh_from(
    urls: Sequence[str],
    root: bytes,
    *,
    channel: str,
    arch: str,
    now: datetime,
    deadline: float,
    floor: trust.Floor | None = None,
    cached: Mapping[str, bytes] | None = None,
    refused: Callable[[str, PhaseError], None] | None = None,
) -> Proven:
    """Refresh from one provider after the other, until one proves its release.

    Args:
        urls: the providers, in the order to ask them.
        root: bytes of the trusted root.
        channel: for example `stable`.
        arch: canonical architecture.
        now: the time, UTC.
        deadline: `time.monotonic()` when all of it must be over. Each provider gets its share of
            what is left, so that a slow one leaves time for those after it.
        floor: what the last refresh returned.
        cached: metadata of an earlier refresh.
        refused: told of each provider given up, and why.

    Raises:
        TrustError: nobody could prove a release, and somebody's was refused.
        FetchError: nobody could be asked.
    """
    asked = list(dict.fromkeys(urls))[:MAX_PROVIDERS]
    failures: list[PhaseError] = []
    for position, url in enumerate(asked):
        share = max(deadline - monotonic(), 0.0) / (len(asked) - position)
        try:
            with Client([url], timeout=share) as client:
                found = trust.refresh(
                    root,
                    client.get_metadata,
                    channel=channel,
                    arch=arch,
                    now=now,
                    floor=floor,
                    cached=cached,
                )
        except PhaseError as error:
            failures.append(error)
            if refused is not None:
                refused(url, error)
        else:
            return Proven(url, found)
    if not failures:
        raise ExhaustedError("there is no provider to ask")
    # Somebody lying says more than somebody not answering.
    raise next((error for error in failures if isinstance(error, trust.TrustError)), failures[0])
