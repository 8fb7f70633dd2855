"""What a node keeps for others, and what not."""

import pytest

from phase.discovery.dht import announcement, holdings
from phase.discovery.dht.announcement import LIFETIME, SKEW, AnnouncementError
from phase.discovery.dht.holdings import Holdings
from phase.identity import Identity

NOW = 1_800_000_000.0


def made(
    number: int = 1, *, host: str = "", port: int = 8080, now: float = NOW, channel: str = "stable"
) -> bytes:
    return announcement.sign(
        Identity.from_seed(number.to_bytes(32)),
        channel=channel,
        arch="x86_64",
        host=host or f"192.0.2.{number}",
        port=port,
        version=1,
        now=now,
    )


PLACE = announcement.key("stable", "x86_64")


def put(
    held: Holdings, envelope: bytes, host: str, now: float = NOW, place: bytes = PLACE, port: int = 8080
) -> None:
    held.put(place, envelope, sender=(host, port), now=now)


def test_kept_replaced_and_expired() -> None:
    held = Holdings()
    first, second = made(now=NOW), made(now=NOW + 60)
    put(held, first, "192.0.2.1")
    put(held, second, "192.0.2.1", NOW + 60)
    assert held.get(PLACE, now=NOW + 60) == [second]
    assert len(held) == 1
    assert held.get(PLACE, now=NOW + 61 + LIFETIME) == []
    # Removed when the next comes.
    put(held, made(2, now=NOW + 61 + LIFETIME), "192.0.2.2", NOW + 61 + LIFETIME)
    assert len(held) == 1


def test_a_replayed_one_is_refused() -> None:
    held = Holdings()
    old, new = made(now=NOW), made(now=NOW + 60)
    put(held, new, "192.0.2.1", NOW + 60)
    for again in (old, new):
        with pytest.raises(AnnouncementError, match="not newer"):
            put(held, again, "192.0.2.1", NOW + 60)
    assert held.get(PLACE, now=NOW + 60) == [new]


def test_nobody_announces_another_host() -> None:
    with pytest.raises(AnnouncementError, match="every host speaks for itself"):
        put(Holdings(), made(), "192.0.2.66")


def test_one_from_the_far_future_is_refused() -> None:
    with pytest.raises(AnnouncementError, match="the limit is"):
        put(Holdings(), made(now=NOW + SKEW + 5), "192.0.2.1")
    put(Holdings(), made(now=NOW + SKEW - 5), "192.0.2.1")


def test_one_host_has_few_and_a_restarted_provider_takes_its_own_place() -> None:
    held = Holdings()
    for number in range(1, 10):
        put(held, made(number, host="192.0.2.1"), "192.0.2.1")
    assert len(held) == 1, "another key at the same address"
    # Somebody else behind the same address takes nobody's place.
    put(held, made(20, host="192.0.2.1"), "192.0.2.1", port=9999)
    with pytest.raises(AnnouncementError, match="in this place already"):
        put(held, made(21, host="192.0.2.1"), "192.0.2.1", port=9999)
    held = Holdings()
    put(held, made(1, host="192.0.2.1"), "192.0.2.1")
    put(held, made(10, host="192.0.2.1", port=8081), "192.0.2.1", port=8081)
    with pytest.raises(AnnouncementError, match="in this place already"):
        put(held, made(11, host="192.0.2.1", port=8082), "192.0.2.1")


def test_a_full_place_keeps_those_it_has() -> None:
    held = Holdings()
    kept = [made(number) for number in range(1, holdings.MAX_IN_PLACE + 1)]
    for number, envelope in enumerate(kept, 1):
        put(held, envelope, f"192.0.2.{number}")
    with pytest.raises(AnnouncementError, match="in this place already"):
        put(held, made(100), "192.0.2.100")
    refreshed = made(1, now=NOW + 1)
    put(held, refreshed, "192.0.2.1", NOW + 1)
    assert sorted(held.get(PLACE, now=NOW + 1)) == sorted([refreshed, *kept[1:]])
    assert sum(map(len, kept)) < 8192


def test_places_and_what_one_host_has_in_them_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Holdings()

    def fill(number: int, host: str) -> None:
        channel = f"c{number}"
        place = announcement.key(channel, "x86_64")
        put(held, made(1, host=host, channel=channel), host, place=place)

    for number in range(holdings.MAX_OF_HOST):
        fill(number, "192.0.2.1")
    with pytest.raises(AnnouncementError, match="announcements here already"):
        fill(holdings.MAX_OF_HOST, "192.0.2.1")
    monkeypatch.setattr(holdings, "MAX_PLACES", holdings.MAX_OF_HOST)
    with pytest.raises(AnnouncementError, match="places are kept already"):
        fill(holdings.MAX_OF_HOST, "192.0.2.2")
