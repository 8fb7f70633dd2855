"""Finds the newest release that any of many providers can prove.

Each provider is asked on its own: files of two providers need not fit together, and a provider that lies
or is silent must not keep a machine from an honest one. A provider can also prove an old release that has
not expired. So after the first proof, the other providers may offer a newer release. Imports the trust
workflow.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from threading import Thread
from time import monotonic
from typing import NamedTuple

from phase import trust
from phase.errors import PhaseError
from phase.fetch.client import Client
from phase.fetch.errors import ExhaustedError
from phase.fetch.way import DIRECT, Way

MAX_PROVIDERS = 16
#: Seconds that all other providers together get to offer a newer release.
OFFER_SECONDS = 2.0


class Proven(NamedTuple):
    """A release, and the provider that has proven it."""

    url: str
    release: trust.Refreshed


class _Offer(NamedTuple):
    """Metadata of a provider that may be newer."""

    #: The root after the one that is trusted, if there is one.
    root: bytes | None
    timestamp: bytes


def refresh_from(
    urls: Sequence[str],
    root: bytes,
    *,
    channel: str,
    arch: str,
    now: datetime,
    deadline: float,
    floor: trust.Floor | None = None,
    others: Sequence[trust.Floor] = (),
    policy: trust.Policy | None = None,
    cached: Mapping[str, bytes] | None = None,
    refused: Callable[[str, PhaseError], None] | None = None,
    way: Way = DIRECT,
) -> Proven:
    """Refresh from one provider after the other until one proves its release; then look for a newer release.

    Args:
        urls: the providers, in the order to ask them.
        root: bytes of the trusted root.
        channel: for example `stable`.
        arch: canonical architecture.
        now: the time, UTC.
        deadline: `time.monotonic()` when the time for everything is up. Each provider gets its share of
            what is left, and one share remains for what comes after this.
        floor: from the last refresh.
        others: floors that other places remember.
        policy: limits, and for how long expired metadata is still taken.
        cached: metadata of an earlier refresh.
        refused: called with each provider that is given up, and why.
        way: how to get to them.

    Raises:
        TrustError: no provider could prove a release, and the metadata of at least one was refused.
        FetchError: no provider could be asked.
    """
    asked = list(dict.fromkeys(urls))[:MAX_PROVIDERS]
    failures: list[PhaseError] = []

    def prove(
        among: Sequence[str], floor: trust.Floor | None, cached: Mapping[str, bytes] | None
    ) -> Proven | None:
        for position, url in enumerate(among):
            left = max(deadline - monotonic(), 0.0)
            share = max(left / (len(among) - position + 1), min(left, 1.0))
            try:
                with Client([url], timeout=share, way=way) as client:
                    found = trust.refresh(
                        root,
                        client.get_metadata,
                        channel=channel,
                        arch=arch,
                        now=now,
                        floor=floor,
                        others=others,
                        policy=policy,
                        cached=cached,
                    )
            except PhaseError as error:
                failures.append(error)
                if refused is not None:
                    refused(url, error)
            else:
                return Proven(url, found)
        return None

    proven = prove(asked, floor, cached)
    if proven is None:
        if not failures:
            raise ExhaustedError("there is no provider to ask")
        # A refusal tells a person more than a provider that does not answer.
        raise next((error for error in failures if isinstance(error, trust.TrustError)), failures[0])
    known = proven.release
    end = min(monotonic() + OFFER_SECONDS, deadline)
    offers = _offers(asked[asked.index(proven.url) + 1 :], known, end, way)
    ranks = {url: _rank(offer, known, now, policy) for url, offer in offers.items()}
    newer = sorted((url for url in ranks if ranks[url] > _of(known)), key=ranks.__getitem__, reverse=True)
    return prove(newer, known.floor, known.metadata) or proven


def _offers(urls: Sequence[str], known: trust.Refreshed, end: float, way: Way) -> dict[str, _Offer]:
    """Ask all of them at once for the two small files that show whether they have a newer release."""
    limits = trust.Policy()
    found: dict[str, _Offer] = {}

    def ask(url: str) -> None:
        try:
            with Client([url], timeout=max(end - monotonic(), 0.0), way=way) as client:
                try:
                    root = client.get_metadata(f"{known.floor.root + 1}.root.json", limits.max_root)
                except trust.NotFoundError:
                    root = None
                timestamp = client.get_metadata("timestamp.json", limits.max_timestamp)
        except PhaseError:
            return  # it offers nothing newer; it is still asked for chunks
        found[url] = _Offer(root, timestamp)

    threads = [Thread(target=ask, args=(url,), daemon=True) for url in urls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(end - monotonic(), 0.0))
    return dict(found)


def _rank(
    offer: _Offer, known: trust.Refreshed, now: datetime, policy: trust.Policy | None
) -> tuple[int, int]:
    """Versions of root and timestamp, as far as keys that are trusted now have signed them; else zeros."""
    if offer == _Offer(None, known.metadata["timestamp.json"]):
        return _of(known)
    found = (0, 0)
    try:
        state = trust.TrustedState(known.metadata["root.json"], now=now, policy=policy)
        if offer.root is not None:
            # The root counts alone, too: the timestamp may be signed by the keys of a still newer root.
            found = state.update_root(offer.root).version, 0
        found = state.root.version, state.update_timestamp(offer.timestamp).version
    except trust.TrustError:
        return found
    return found


def _of(known: trust.Refreshed) -> tuple[int, int]:
    return known.floor.root, known.floor.timestamp
