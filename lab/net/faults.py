"""What can be wrong with a cable, and the decision of what happens to each frame on it.

Nothing here reads a clock or sends anything: a lane is asked about a frame at a time, and answers with when
what arrives. So a run is repeated by its seed, and tried without machines.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from lab.errors import MisuseError

#: Frames under way on one lane, beyond which more are lost: a long delay must not fill the memory.
LIMIT = 16_384
#: Bytes that a rate lets pass at once.
_BURST = 3_000
_HEADER = 14


@dataclass(frozen=True, slots=True)
class Faults:
    """What one direction of a cable does to frames. Without arguments: nothing.

    Attributes:
        loss: the share of frames that vanish, 0 to 1.
        delay: seconds each frame takes.
        jitter: seconds by which the delay varies, evenly, up and down; order is kept.
        reorder: the share of frames that others overtake, 0 to 1.
        late: seconds by which a reordered frame comes later.
        duplicate: the share of frames that arrive twice, 0 to 1.
        corrupt: the share of frames with one bit turned, behind the Ethernet header, 0 to 1.
        rate: bytes a second; 0 for as fast as can be.
        queue: bytes that wait for their turn when there is a rate; what does not fit is lost.
        mtu: the longest payload of a frame in bytes that passes; 0 for any.
        partition: nothing passes, and neither end is told.
    """

    loss: float = 0.0
    delay: float = 0.0
    jitter: float = 0.0
    reorder: float = 0.0
    late: float = 0.02
    duplicate: float = 0.0
    corrupt: float = 0.0
    rate: float = 0.0
    queue: int = 65_536
    mtu: int = 0
    partition: bool = False

    def __post_init__(self) -> None:
        """Refuse what means nothing.

        Raises:
            MisuseError: a share is not between 0 and 1, or something else is negative.
        """
        for name in ("loss", "reorder", "duplicate", "corrupt"):
            if not 0 <= getattr(self, name) <= 1:
                raise MisuseError(f"{name} is {getattr(self, name)}; it is a share, from 0 to 1")
        for name in ("delay", "jitter", "late", "rate", "queue", "mtu"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise MisuseError(f"{name} is {getattr(self, name)}; it is 0 or more, and finite")


NONE = Faults()


class Lane:
    """One direction of one cable.

    Args:
        seed: what its random numbers come from; its name is part of it.

    Attributes:
        lost: why frames were lost, and how many.
        pending: frames under way.
    """

    def __init__(self, seed: str) -> None:
        self.lost: Counter[str] = Counter()
        self.pending = 0
        self._faults = NONE
        self._drop: Callable[[bytes], bool] | None = None
        # S311: not a secret, and it must come out the same again.
        self._random = random.Random(seed)  # noqa: S311
        self._last = 0.0
        self._busy = 0.0

    @property
    def active(self) -> bool:
        """False while frames need not be asked about."""
        return self._faults is not NONE or self._drop is not None or self.pending > 0

    @property
    def faults(self) -> Faults:
        """What is wrong with it; may be set at any time."""
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._faults = faults

    @property
    def drop(self) -> Callable[[bytes], bool] | None:
        """Asked for every frame, when set; true loses it."""
        return self._drop

    @drop.setter
    def drop(self, drop: Callable[[bytes], bool] | None) -> None:
        self._drop = drop

    def admit(self, frame: bytes, now: float) -> list[tuple[float, bytes]]:
        """What becomes of a frame.

        Args:
            frame: that enters the lane.
            now: seconds of a clock that never goes back.

        Returns:
            When what arrives; nothing when it is lost, two when it is doubled.
        """
        faults = self._faults
        # As many numbers for each frame whatever is wrong: what happens to the n-th frame by one fault
        # does not depend on the others.
        chance = self._random.random
        lost, doubled, late, bent, wait, where = (chance() for _ in range(6))
        if why := self._lost(faults, frame, lost, now):
            self.lost[why] += 1
            return []
        if bent < faults.corrupt and len(frame) > _HEADER:
            frame = _turned(frame, where)
        due = self._turn(faults, len(frame), now) if faults.rate else now
        due += max(0.0, faults.delay + (2 * wait - 1) * faults.jitter)
        if late < faults.reorder:
            # It does not hold the others up: that is what makes it come behind them.
            due += faults.late
        else:
            due = self._last = max(due, self._last)
        return [(due, frame)] * (2 if doubled < faults.duplicate else 1)

    def _lost(self, faults: Faults, frame: bytes, chance: float, now: float) -> str:
        if faults.partition:
            return "partition"
        if self._drop is not None and self._drop(frame):
            return "drop"
        if chance < faults.loss:
            return "loss"
        if faults.mtu and len(frame) - _HEADER > faults.mtu:
            return "mtu"
        if faults.rate and (max(self._busy, now) - now) * faults.rate + len(frame) > faults.queue + _BURST:
            return "queue"
        return "limit" if self.pending >= LIMIT else ""

    def _turn(self, faults: Faults, length: int, now: float) -> float:
        """A token bucket, told as the time at which its debt is paid (ITU I.371)."""
        self._busy = max(self._busy, now) + length / faults.rate
        return max(now, self._busy - _BURST / faults.rate)


def _turned(frame: bytes, where: float) -> bytes:
    bit = int(where * (len(frame) - _HEADER) * 8)
    changed = bytearray(frame)
    changed[_HEADER + bit // 8] ^= 1 << bit % 8
    return bytes(changed)


class Waiting:
    """Frames that arrive later, in the order of their time."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Lane, Callable[[bytes], None], bytes]] = []
        self._count = 0

    def add(self, due: float, lane: Lane, then: Callable[[bytes], None], frame: bytes) -> None:
        """Keep a frame until its time, then call `then` with it."""
        self._count += 1
        lane.pending += 1
        heapq.heappush(self._heap, (due, self._count, lane, then, frame))

    def left(self, now: float) -> float | None:
        """Seconds until the next; None when there is none."""
        heap = self._heap  # may be another a moment later, for somebody who forgets
        return max(0.0, heap[0][0] - now) if heap else None

    def forget(self, lane: Lane) -> int:
        """Lose everything that is under way on a lane; returns how many frames that were."""
        kept = [entry for entry in self._heap if entry[2] is not lane]
        lost = len(self._heap) - len(kept)
        heapq.heapify(kept)
        self._heap = kept
        lane.pending -= lost
        return lost

    def release(self, now: float) -> None:
        """Let everything arrive whose time has come."""
        while self._heap and self._heap[0][0] <= now:
            _, _, lane, then, frame = heapq.heappop(self._heap)
            lane.pending -= 1
            then(frame)
