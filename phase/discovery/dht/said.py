"""What the DHT needs to know of a signed record, whatever else it says."""

from typing import Protocol


class Said(Protocol):
    """A record of one host, signed by its own key."""

    @property
    def host(self) -> str:
        """The IPv4 address of the host that it is about, which also sends it."""

    @property
    def port(self) -> int:
        """A port there."""

    @property
    def key(self) -> str:
        """The signing key, 64 hex digits."""

    @property
    def seq(self) -> int:
        """Grows with each record of a key."""

    @property
    def expires(self) -> int:
        """Seconds since the epoch."""


class Read(Protocol):
    """Checks an envelope that anyone may have sent; see `announcement.read`."""

    def __call__(self, envelope: bytes, *, place: bytes, now: float) -> Said:
        """The record in it.

        Raises:
            AnnouncementError: it is not valid.
        """
