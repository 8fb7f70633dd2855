"""What the release is: the newest that any of many providers can prove.

Each provider is asked on its own: files of two providers need not fit together, and one that lies
or says nothing must not keep a machine from one that is honest. An old release that has not expired is
proven too, so once one provider has proven something, the others may offer something newer. Imports the
trust workflow.
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

MAX_PROVIDERS = 16
#: Seconds that all the others get, together, to offer something newer.
OFFER_SECONDS = 2.0


class Proven(NamedTuple):
    """A release, and who could prove it."""

    url: str
    release: trust.Refreshed


class _Offer(NamedTuple):
    """What a provider has that may be newer."""

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
) -> Proven:
    """Refresh from one provider after the other until one proves its release; take a newer one if there is.

    Args:
        urls: the providers, in the order to ask them.
        root: bytes of the trusted root.
        channel: for example `stable`.
        arch: canonical architecture.
        now: the time, UTC.
        deadline: `time.monotonic()` when the time for everything is up. Each provider gets its share of
            what is left, and one share remains for what comes after this.
        floor: what the last refresh returned.
        others: the same as other places remember it.
        policy: limits, and how long what has expired is still taken.
        cached: metadata of an earlier refresh.
        refused: told of each provider given up, and why.

    Raises:
        TrustError: nobody could prove a release, and somebody's was refused.
        FetchError: nobody could be asked.
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
                with Client([url], timeout=share) as client:
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
        # Somebody lying says more than somebody not answering.
        raise next((error for error in failures if isinstance(error, trust.TrustError)), failures[0])
    known = proven.release
    end = min(monotonic() + OFFER_SECONDS, deadline)
    offers = _offers(asked[asked.index(proven.url) + 1 :], known, end)
    ranks = {url: _rank(offer, known, now, policy) for url, offer in offers.items()}
    newer = sorted((url for url in ranks if ranks[url] > _of(known)), key=ranks.__getitem__, reverse=True)
    return prove(newer, known.floor, known.metadata) or proven


def _offers(urls: Sequence[str], known: trust.Refreshed, end: float) -> dict[str, _Offer]:
    """Ask all of them at once for the two small files that say whether they know more."""
    limits = trust.Policy()
    found: dict[str, _Offer] = {}

    def ask(url: str) -> None:
        try:
            with Client([url], timeout=max(end - monotonic(), 0.0)) as client:
                try:
                    root = client.get_metadata(f"{known.floor.root + 1}.root.json", limits.max_root)
                except trust.NotFoundError:
                    root = None
                timestamp = client.get_metadata("timestamp.json", limits.max_timestamp)
        except PhaseError:
            return  # it has nothing to offer; for its chunks it is still asked
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
    """Versions of root and timestamp, as far as the keys trusted now vouch for them; zeros if for none."""
    if offer == _Offer(None, known.metadata["timestamp.json"]):
        return _of(known)
    found = (0, 0)
    try:
        state = trust.TrustedState(known.metadata["root.json"], now=now, policy=policy)
        if offer.root is not None:
            # It counts by itself: the timestamp may be signed by the keys of one that is newer still.
            found = state.update_root(offer.root).version, 0
        found = state.root.version, state.update_timestamp(offer.timestamp).version
    except trust.TrustError:
        return found
    return found


def _of(known: trust.Refreshed) -> tuple[int, int]:
    return known.floor.root, known.floor.timestamp
