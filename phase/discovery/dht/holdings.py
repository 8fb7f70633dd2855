"""The announcements that a node keeps for others: limited, signed, current, each sent by its own host."""

from typing import NamedTuple

from phase.discovery.dht import announcement
from phase.discovery.dht.announcement import LIFETIME, SKEW, AnnouncementError
from phase.discovery.dht.said import Read, Said

#: Limits: announcements in one place, places, and announcements of one host in all places.
MAX_IN_PLACE = 16
MAX_PLACES = 256
MAX_OF_HOST = 16
#: Limit for the announcements of one host in one place.
MAX_OF_HOST_IN_PLACE = 2


class _Held(NamedTuple):
    said: Said
    envelope: bytes


class Holdings:
    """Announcements by place. They stay until they expire: new ones do not displace them.

    Args:
        read: checks an envelope: what is kept.
    """

    def __init__(self, read: Read = announcement.read) -> None:
        self._read = read
        self._places: dict[bytes, list[_Held]] = {}

    def __len__(self) -> int:
        return sum(len(held) for held in self._places.values())

    def put(self, place: bytes, envelope: bytes, *, sender: tuple[str, int], now: float) -> None:
        """Keep an announcement, in place of an older one of the same key or the same sender.

        Args:
            place: 20 bytes.
            envelope: from anyone.
            sender: address and UDP port of the node that sends it; it has been asked, and has it.
            now: seconds since the epoch.

        Raises:
            AnnouncementError: it is not kept; the message says why.
        """
        said = self._read(envelope, place=place, now=now)
        # Checked only here: the clock of a machine that searches may be behind.
        if said.expires > now + LIFETIME + SKEW:
            raise AnnouncementError(
                f"an announcement for {said.expires - now:.0f} s; the limit is {LIFETIME}"
            )
        host = sender[0]
        if said.host != host:
            raise AnnouncementError(f"{host} announces {said.host}; every host speaks for itself")
        self._expire(now)
        held = self._places.get(place, [])
        same_key = [one for one in held if one.said.key == said.key]
        if any(one.said.seq >= said.seq for one in same_key):
            raise AnnouncementError("an announcement that is not newer than the one that is kept")
        # A provider that was restarted has a new key, and its node has the same port.
        anew = sender if sender == (said.host, said.port) else None
        rest = [one for one in held if one.said.key != said.key and (one.said.host, one.said.port) != anew]
        if len(rest) >= MAX_IN_PLACE:
            raise AnnouncementError(f"{MAX_IN_PLACE} announcements are kept in this place already")
        if sum(one.said.host == host for one in rest) >= MAX_OF_HOST_IN_PLACE:
            raise AnnouncementError(f"{host} has {MAX_OF_HOST_IN_PLACE} announcements in this place already")
        if not held and len(self._places) >= MAX_PLACES:
            raise AnnouncementError(f"{MAX_PLACES} places are kept already")
        elsewhere = sum(
            one.said.host == host for other, each in self._places.items() if other != place for one in each
        )
        if elsewhere >= MAX_OF_HOST:
            raise AnnouncementError(f"{host} has {MAX_OF_HOST} announcements here already")
        self._places[place] = [*rest, _Held(said, envelope)]

    def get(self, place: bytes, *, now: float) -> list[bytes]:
        """The envelopes in a place."""
        return [one.envelope for one in self._places.get(place, []) if one.said.expires > now]

    def _expire(self, now: float) -> None:
        for place, held in list(self._places.items()):
            left = [one for one in held if one.said.expires > now]
            if left:
                self._places[place] = left
            else:
                del self._places[place]
