"""What the lab's switch costs: frames between two sockets, through it and through a bare relay.

The floor is a thread that reads a datagram and sends it on. Both are fed by the same loop, which keeps
a window of frames under way as a machine's TCP would. The switch learns, captures and may spoil frames
besides, so it is allowed to take longer.

    python -m bench.switch
"""

import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.net.switch import Switch

_FRAMES = 20_000
#: Frames under way at once. With more than the kernel keeps for a socket, every sender would wait for the
#: others' turns, and both figures would be about that.
_KEPT = Path("/proc/sys/net/unix/max_dgram_qlen")
_WINDOW = min(128, int(_KEPT.read_text())) if _KEPT.exists() else 128
_ROUNDS = 5
#: The switch may take so many times the relay's time.
_BUDGET = 4.0
_FRAME = b"\x52\x54\x00\x00\x00\x02" + b"\x52\x54\x00\x00\x00\x01" + b"\x08\x00" + bytes(1500)
_ANSWER = _FRAME[6:12] + _FRAME[:6] + _FRAME[12:60]
_LONGEST = 2048


def _socket(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(path))
    made.settimeout(10)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        made.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
    return made


@contextmanager
def through_switch(directory: Path) -> Iterator[tuple[socket.socket, Path, socket.socket]]:
    """Two machines' ends of a switch that knows both: the sender, where it sends to, the receiver."""
    switch = Switch("lan", directory)
    try:
        one, two = switch.attach("one"), switch.attach("two")
        with _socket(one.machine_socket) as sender, _socket(two.machine_socket) as receiver:
            receiver.sendto(_ANSWER, str(two.switch_socket))
            sender.recv(_LONGEST)
            yield sender, one.switch_socket, receiver
    finally:
        switch.close()


@contextmanager
def through_relay(directory: Path) -> Iterator[tuple[socket.socket, Path, socket.socket]]:
    """The same ends with nothing but a thread between them."""
    here, there = directory / "here", directory / "there"
    with _socket(directory / "sender") as sender, _socket(here) as middle, _socket(there) as receiver:

        def relay() -> None:
            while frame := middle.recv(_LONGEST):
                middle.sendto(frame, str(there))

        thread = threading.Thread(target=relay)
        thread.start()
        try:
            yield sender, here, receiver
        finally:
            sender.sendto(b"", str(here))
            thread.join()


def rate(sender: socket.socket, to: Path, receiver: socket.socket) -> float:
    """Frames a second."""
    target = str(to)
    begun = time.perf_counter()
    for number in range(_FRAMES + _WINDOW):
        if number < _FRAMES:
            sender.sendto(_FRAME, target)
        if number >= _WINDOW:
            receiver.recv(_LONGEST)
    return _FRAMES / (time.perf_counter() - begun)


def main() -> int:
    floors: list[float] = []
    switched: list[float] = []
    for _ in range(_ROUNDS):
        for kind, found in ((through_relay, floors), (through_switch, switched)):
            with tempfile.TemporaryDirectory() as directory, kind(Path(directory)) as ends:
                found.append(rate(*ends))
    ratio = statistics.median(low / high for low, high in zip(floors, switched, strict=True))
    megabytes = statistics.median(switched) * len(_FRAME) / 1e6
    print(
        f"switch: {statistics.median(switched):,.0f} frames/s ({megabytes:.0f} MB/s), bare relay "
        f"{statistics.median(floors):,.0f}; {ratio:.2f} times its time (budget {_BUDGET:g})"
    )
    return 0 if ratio <= _BUDGET else 1


if __name__ == "__main__":
    sys.exit(main())
