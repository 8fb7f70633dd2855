"""What other machines have of an artifact that they fetch at the same time, and when a provider must help.

A crowd takes each chunk from its provider about once: every machine asks the provider for chunks that
no other has, from a random place on, and gets the rest from the others. It asks the provider for what
others have only where they are slower than the provider is. In a large crowd, machines take turns to ask it:
what a thousand ask for at once comes late to all of them, and mostly more than once.
"""

import os
from time import monotonic

#: Bytes of one request while others share. Small, since two machines may choose the same part.
RUN = 128 << 10
#: An answer with more bytes left than this is broken off when the first of the others is found.
WORTH_BREAKING = 4 * RUN
#: Seconds over which the others' speed is measured.
WINDOW = 1.0
#: Machines that ask a provider at the same time, about.
ASKING = 16
#: Seconds until a machine that has not asked yet may begin, and seconds that one waits at most for its turn.
BEGIN_SECONDS, MOST_SECONDS = 0.5, 5.0
#: Seconds without a chunk after which a machine asks out of turn: it was told of too many machines.
HUNGRY_SECONDS = 3.0


class Others:
    """Their chunks, as bitmaps, and their speed. Its transfer's lock guards it.

    A bitmap has one bit for each chunk, the first chunk in the lowest bit of the first byte.
    """

    def __init__(self) -> None:
        self._has: dict[str, bytes] = {}
        #: What any of them has.
        self.any = b""
        #: Bytes a second that the quickest provider has sent.
        self.provider_rate = 0.0
        #: How many machines fetch it, as a provider says.
        self.machines = 1
        self._since = self._came = monotonic()
        self._next = 0.0
        self._bytes = 0
        self._slow = False

    def __bool__(self) -> bool:
        return bool(self._has)

    def set(self, who: str, bitmap: bytes) -> None:
        """Another machine has these chunks."""
        if not self._has:
            self._since, self._bytes, self._slow = monotonic(), 0, False
            self._came = self._since
        self._has[who] = bitmap
        self._join()

    def drop(self, who: str) -> None:
        """Another machine is gone."""
        if self._has.pop(who, None) is not None:
            self._join()

    def came(self, size: int, *, shared: bool) -> None:
        """Verified bytes came, from one of them or from a provider."""
        self._bytes += size if shared else 0
        self._came = monotonic()

    def turn(self) -> bool:
        """Whether this machine may ask a provider now."""
        now = monotonic()
        if self.machines <= ASKING or now - self._came > HUNGRY_SECONDS:
            return True
        if now < self._next:
            return False
        if self.provider_rate or _chance() < ASKING / self.machines:
            return True
        self._next = now + BEGIN_SECONDS
        return False

    def asked(self, size: int, seconds: float) -> None:
        """A provider has sent so many bytes in so many seconds; others have their turns now."""
        if seconds <= 0:
            return
        self.provider_rate = max(self.provider_rate / 2, size / seconds)
        rest = min(seconds * max(self.machines / ASKING - 1, 0.0), MOST_SECONDS)
        self._next = monotonic() + rest * (0.5 + _chance())

    def slow(self) -> bool:
        """Whether a provider brought more than all of them together in the last window.

        They get one window before the first answer, so that a machine that boots with them waits for them.
        """
        now = monotonic()
        if (span := now - self._since) >= WINDOW:
            # Where no provider was asked yet, it may be the quicker one: others may dribble.
            self._slow = not self.provider_rate or self._bytes <= self.provider_rate * span
            self._since, self._bytes = now, 0
        return self._slow

    def _join(self) -> None:
        size = max(map(len, self._has.values()), default=0)
        whole = 0
        for bitmap in self._has.values():
            whole |= int.from_bytes(bitmap, "little")
        self.any = whole.to_bytes(size, "little")


def _chance() -> float:
    """A number from 0 to 1. Not of `random`: its import costs a booting machine time."""
    return int.from_bytes(os.urandom(4), "big") / (1 << 32)


def bit(bitmap: bytes, index: int) -> bool:
    """Whether a bitmap has a chunk."""
    return index >> 3 < len(bitmap) and bool(bitmap[index >> 3] >> (index & 7) & 1)


def bitmap_of(done: bytes | bytearray) -> bytes:
    """A bitmap of flags, one byte for each chunk."""
    whole = int(bytes(done[::-1]).translate(_DIGITS) or b"0", 2)
    return whole.to_bytes((len(done) + 7) >> 3, "little")


#: Flags to the digits of a binary number.
_DIGITS = bytes((48, *[49] * 255))
