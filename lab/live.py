"""Says what goes on while a run lasts, past whatever captures output.

What takes long (`Announcer`), and on request what machines do (`watching`): each mark as it comes, and the
last line of a silent one.
"""

import contextlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from lab.machine import Machine
from lab.report.drawing import printable
from lab.topology import Lab

_POLL = 0.25
#: Seconds without a mark after which a machine's last line is shown.
SILENCE = 10.0
#: Lines for the lab and not for people: what its shell says and is sent, and marks.
_PROTOCOL = re.compile(r"\blab-[0-9a-f]{8} |-mark \{|\S{80}")


class Announcer(logging.Handler):
    """Prints what the lab and the builders of images log to the standard error that the process has now."""

    NAMES = ("lab", "boot")

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        # Later on this descriptor is what the test runner captures.
        self._out = os.dup(2)

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line; a terminal that is gone does not fail the run."""
        with contextlib.suppress(OSError):
            os.write(self._out, f"\n{record.name}: {record.getMessage()}\n".encode(errors="replace"))

    def open(self) -> None:
        """Begin."""
        for name in self.NAMES:
            logging.getLogger(name).setLevel(logging.INFO)
            logging.getLogger(name).addHandler(self)

    def close(self) -> None:
        """End. Safe to call again."""
        for name in self.NAMES:
            logging.getLogger(name).removeHandler(self)
        super().close()
        if self._out >= 0:
            os.close(self._out)
            self._out = -1


class Watch:
    """Finds what is new on the machines of a lab."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, int]] = {}
        self._said: dict[str, float] = {}
        self._last: dict[str, str] = {}

    def news(self, machines: Sequence[Machine], now: float) -> list[str]:
        """Lines about what has happened since the last time.

        Args:
            machines: that are on, or were.
            now: `time.monotonic()`.
        """
        lines = []
        for vm in machines:
            if not vm.power_on:
                continue
            power_on, count = self._seen.get(vm.name, (vm.power_on, 0))
            if power_on != vm.power_on:
                count = 0
            marks = vm.marks
            for number, mark in enumerate(marks[count:], count):
                # A phase lasts from the mark before it, the first one from power-on.
                began = marks[number - 1].arrived if number else vm.power_on
                told = printable(f"{mark.step} {mark.outcome}")
                since, took = mark.arrived - vm.power_on, mark.arrived - began
                lines.append(f"  {since:6.1f} s  {_label(vm)}: {told}, took {took:.1f} s")
            self._seen[vm.name] = (vm.power_on, len(marks))
            if marks[count:] or vm.name not in self._said:
                self._said[vm.name] = now
            elif vm.running and now - self._said[vm.name] > SILENCE:
                self._said[vm.name] = now
                last = printable(vm.console.tail(1), 100)
                if last.strip() and last != self._last.get(vm.name) and not _PROTOCOL.search(last):
                    self._last[vm.name] = last
                    lines.append(f"  {now - vm.power_on:6.1f} s  {_label(vm)}: ... {last}")
        return lines


def _label(vm: Machine) -> str:
    # Machines of both architectures run side by side, with the same names.
    return f"{vm.arch} {vm.name}"


@contextlib.contextmanager
def watching(name: str, find: Callable[[], Lab | None]) -> Iterator[None]:
    """Print news to the standard error that the process has now, until the end.

    Args:
        name: of the scenario.
        find: gives its lab, once there is one.
    """
    # Later on this descriptor is what the test runner captures.
    out = os.dup(2)
    ended = threading.Event()

    def watch() -> None:
        seen = Watch()
        os.write(out, f"\n{name}\n".encode())
        while not ended.wait(_POLL):
            made = find()
            for line in seen.news(list(made.machines.values()), time.monotonic()) if made else ():
                os.write(out, f"{line}\n".encode(errors="replace"))

    thread = threading.Thread(target=watch, name="lab-live")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        os.close(out)
