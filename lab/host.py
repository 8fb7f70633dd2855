"""What this host can do: which accelerator really works, and how slow it is."""

import functools
import json
import math
import os
import platform
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from lab.clean import cache_directory
from lab.doctor.accel import Ladder, Rung, climb
from lab.errors import MisuseError
from lab.qemu.command import PROGRAMS

#: Architecture as Python says it -> as the lab does.
ARCHES = {"x86_64": "x86_64", "AMD64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
_ACCELERATORS = ("tcg", "kvm", "hvf")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
#: Seconds that `_work` takes where the lab's timeouts were chosen: Python 3.11, one core at 2.8 GHz.
_REFERENCE = 0.045
_MOST = 10.0


def accelerator(arch: str) -> str:
    """The accelerator for machines of an architecture: one that has booted a kernel here, or `tcg`.

    The verdict is kept until this host restarts or gets another QEMU. `LAB_ACCEL` decides instead.

    Args:
        arch: `x86_64` or `arm64`.

    Raises:
        MisuseError: `LAB_ACCEL` does not name an accelerator.
    """
    named = os.environ.get("LAB_ACCEL", "")
    if named not in ("", *_ACCELERATORS):
        raise MisuseError(f"LAB_ACCEL is {named!r}; it is one of {', '.join(_ACCELERATORS)}")
    if ARCHES.get(platform.machine()) != arch:
        return "tcg"
    return named or _verdict().accel


def refused(arch: str) -> str:
    """Why machines of an architecture are emulated here; empty when they are not, or `LAB_ACCEL` says so.

    Args:
        arch: `x86_64` or `arm64`.
    """
    own = ARCHES.get(platform.machine(), platform.machine())
    if own != arch:
        return f"the host is {own}"
    if os.environ.get("LAB_ACCEL"):
        return ""
    broken = next((rung for rung in _verdict().rungs if not rung.ok), None)
    return f"{broken.name}: {broken.detail}" if broken else ""


@functools.cache
def _verdict() -> Ladder:
    return verdict(cache_directory() / "accelerator.json")


def verdict(kept: Path, *, ask: Callable[[], Ladder] = climb) -> Ladder:
    """The ladder's word on this host, asked once.

    Args:
        kept: where the answer is kept.
        ask: takes seconds.
    """
    key = _key()
    try:
        told = json.loads(kept.read_bytes())
        if told["key"] == key:
            return Ladder(told["accel"], tuple(Rung(*rung) for rung in told["rungs"]), told["remedy"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not asked yet, or by another version
    ladder = ask()
    if ladder.final:
        kept.parent.mkdir(parents=True, exist_ok=True)
        beside = kept.with_suffix(f".{os.getpid()}")
        beside.write_text(json.dumps({"key": key, **ladder._asdict()}) + "\n")
        beside.replace(kept)
    return ladder


def _key() -> list[str | float]:
    booted = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else f"{psutil.boot_time():.0f}"
    found = shutil.which(PROGRAMS.get(ARCHES.get(platform.machine(), ""), ""))
    return [booted, found or "", Path(found).stat().st_mtime if found else 0.0]


def factor() -> float:
    """What timeouts are multiplied by here: how much slower this host is than the one they were chosen on.

    `LAB_TIMEOUT_FACTOR` decides instead. A faster host waits as long as the reference does.

    Raises:
        MisuseError: `LAB_TIMEOUT_FACTOR` is not such a number.
    """
    text = os.environ.get("LAB_TIMEOUT_FACTOR")
    if text is None:
        return slowness(_speed(), os.getloadavg()[0], os.cpu_count() or 1)
    try:
        named = float(text)
    except ValueError:
        named = 0.0
    if not 0.1 <= named <= 100:
        raise MisuseError(f"LAB_TIMEOUT_FACTOR is {text!r}; it is a number from 0.1 to 100")
    return named


def slowness(seconds: float, load: float, cores: int) -> float:
    """A timeout factor, from 1 to 10, in halves.

    Args:
        seconds: that the reference's work takes here.
        load: processes that want to run, on average.
        cores: to run them on.
    """
    # The machines of one scenario fill the cores by themselves: only what comes on top makes them wait.
    crowd = max(load / cores - 1, 0.0)
    return min(max(math.ceil(2 * (seconds / _REFERENCE + crowd) - 0.5) / 2, 1.0), _MOST)


@functools.cache
def _speed() -> float:
    return min(_work() for _ in range(3))


def _work() -> float:
    begun = time.perf_counter()
    number = 0
    for step in range(1_000_000):
        number ^= step
    return time.perf_counter() - begun
