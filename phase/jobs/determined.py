"""The world of a deterministic job: random bytes from a seed, and clocks that no other clock moves.

random_get       bytes of the Mersenne Twister (MT19937) that Python's `random.Random(seed)` is
clock_time_get   begins at 2000-01-01 00:00:00 UTC (the monotonic clock at 0); each look takes a millisecond
clock_res_get    a millisecond
poll_oneoff      descriptors are ready at once; else the clocks jump to the first time that is waited for

Time and randomness are all that a module can learn from the engine's WASI besides what it is given. Floating
point and relaxed vectors are exact in all jobs (`phase.jobs.settings`).
"""

import _random
import ctypes
from collections.abc import Iterator

from phase.jobs.host import EINVAL, EVENT, MANY, SUBSCRIPTION, Function, Memory, Trap

#: 2000-01-01 00:00:00 UTC, and a look at the clock, in nanoseconds.
_BEGIN, _LOOK = 946_684_800 * 10**9, 10**6
_REALTIME, _MONOTONIC = 0, 1
#: Of a subscription: its kind, and the flag that its time is not from now.
_CLOCK, _ABSOLUTE = 0, 1
#: Random bytes made at once: a multiple of the generator's four.
_PART = 1 << 16


class World:
    """Time and randomness of one job.

    Args:
        seed: of its random bytes.
        memory: the address and size of the caller's memory, or None.
        trap: makes a trap from a message.
    """

    def __init__(self, seed: int, memory: Memory, trap: Trap) -> None:
        self._random = _random.Random(seed)
        self._memory, self._trap = memory, trap
        self._passed = 0

    def functions(self) -> Iterator[tuple[bytes, str, Function]]:
        """Name, parameters and code of each function."""
        yield b"random_get", "ii", self._random_get
        yield b"clock_time_get", "iIi", self._clock_time_get
        yield b"clock_res_get", "ii", self._clock_res_get
        yield b"poll_oneoff", "iiii", self._poll_oneoff

    def _place(self, caller: int, at: int, size: int) -> int | None:
        """The address of a part of the caller's memory; None if it is not within it."""
        found = self._memory(caller)
        return found[0] + at if found and at + size <= found[1] else None

    def _random_get(self, caller: int, values: "ctypes.Array[ctypes.c_uint64]") -> int | None:
        at, size = values[0] & 0xFFFFFFFF, values[2] & 0xFFFFFFFF
        place = self._place(caller, at, size)
        if place is None:
            return self._trap("pointer out of bounds")
        for done in range(0, size, _PART):
            count = min(size - done, _PART)
            made = self._random.getrandbits(8 * count).to_bytes(count, "little")
            ctypes.memmove(place + done, made, count)
        values[0] = 0
        return None

    def _clock_time_get(self, caller: int, values: "ctypes.Array[ctypes.c_uint64]") -> int | None:
        clock = values[0] & 0xFFFFFFFF
        self._passed += _LOOK
        return self._tell(caller, values, clock, self._now(clock), values[4] & 0xFFFFFFFF)

    def _clock_res_get(self, caller: int, values: "ctypes.Array[ctypes.c_uint64]") -> int | None:
        return self._tell(caller, values, values[0] & 0xFFFFFFFF, _LOOK, values[2] & 0xFFFFFFFF)

    def _tell(
        self, caller: int, values: "ctypes.Array[ctypes.c_uint64]", clock: int, number: int, at: int
    ) -> int | None:
        if clock not in (_REALTIME, _MONOTONIC):
            values[0] = EINVAL
            return None
        place = self._place(caller, at, 8)
        if place is None:
            return self._trap("pointer out of bounds")
        ctypes.c_uint64.from_address(place).value = number
        values[0] = 0
        return None

    def _now(self, clock: int) -> int:
        return self._passed + (_BEGIN if clock == _REALTIME else 0)

    def _poll_oneoff(self, caller: int, values: "ctypes.Array[ctypes.c_uint64]") -> int | None:
        given, out, count, told = (values[2 * n] & 0xFFFFFFFF for n in range(4))
        if not 0 < count <= MANY:
            values[0] = EINVAL
            return None
        asked = self._place(caller, given, SUBSCRIPTION * count)
        answer, number = self._place(caller, out, EVENT * count), self._place(caller, told, 4)
        if asked is None or answer is None or number is None:
            return self._trap("pointer out of bounds")
        events = self._wait(ctypes.string_at(asked, SUBSCRIPTION * count))
        ctypes.memmove(answer, b"".join(events), EVENT * len(events))
        ctypes.c_uint32.from_address(number).value = len(events)
        values[0] = 0
        return None

    def _wait(self, asked: bytes) -> list[bytes]:
        """The events of some subscriptions, once the first of them has happened."""
        each = [asked[at : at + SUBSCRIPTION] for at in range(0, len(asked), SUBSCRIPTION)]
        ready = [_event(one, nbytes=1) for one in each if one[8] != _CLOCK]
        times = [(self._until(one), one) for one in each if one[8] == _CLOCK]
        if not ready:
            self._passed = max(self._passed, min(until for until, _ in times))
        return ready + [_event(one) for until, one in times if until <= self._passed]

    def _until(self, one: bytes) -> int:
        """When a subscription of a clock ends, in nanoseconds of this world."""
        clock, time = int.from_bytes(one[16:20], "little"), int.from_bytes(one[24:32], "little")
        if one[40] & _ABSOLUTE:
            return time - (_BEGIN if clock == _REALTIME else 0)
        return self._passed + time


def _event(one: bytes, nbytes: int = 0) -> bytes:
    """The event of a subscription: its word, no error, its kind, how much may be read or written."""
    return one[:8] + b"\0\0" + one[8:9] + bytes(5) + nbytes.to_bytes(8, "little") + bytes(8)
