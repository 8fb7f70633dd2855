"""The filter of system calls, decided on paper: both architectures, whatever this machine is."""

import errno
import platform
import re
import struct
from pathlib import Path

import pytest

from phase.jobs import calls

_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_X86_64, _ARM64, _I386, _ARM = 0xC000003E, 0xC00000B7, 0x40000003, 0x40000028
_OWN = 4321
_THREAD = 0x3D0F00
#: Where Linux's own numbers are, if its headers are installed.
_HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
_PLACES = {"x86_64": 0, "aarch64": 1}


def decide(code: bytes, architecture: int, number: int, *arguments: int) -> int:
    """What the kernel makes of a filter: classic BPF, as far as it is used."""
    data = struct.pack("<IIQ6Q", number, architecture, 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    at = accumulator = 0
    while True:
        kind, true, false, value = struct.unpack_from("<HBBI", code, 8 * at)
        at += 1
        if kind == 0x20:
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif kind == 0x54:
            accumulator &= value
        elif kind == 0x06:
            return int(value)
        else:
            assert kind == 0x15
            at += true if accumulator == value else false


@pytest.fixture(params=["x86_64", "aarch64"])
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def own(machine: str) -> int:
    return {"x86_64": _X86_64, "aarch64": _ARM64}[machine]


def test_what_is_not_listed_ends_the_process(machine: str) -> None:
    code = calls.program(machine, _OWN)
    listed = {
        numbers[_PLACES[machine]] for table in (calls._ALLOWED, calls._REFUSED) for numbers in table.values()
    }
    special = {0, 1, 9, 22, 25, 56, 72, 131, 220, 222, 234, 261, 302, 435}
    for number in range(1024):
        if number not in listed | special:
            assert decide(code, own(machine), number) == _KILL


def test_calls_of_another_architecture_end_the_process(machine: str) -> None:
    """The same numbers are other calls there."""
    code = calls.program(machine, _OWN)
    write = calls._ALLOWED["write"][_PLACES[machine]]
    assert write is not None
    assert decide(code, own(machine), write) == _ALLOW
    for other in (_I386, _ARM, _ARM64 if machine == "x86_64" else _X86_64):
        assert decide(code, other, write) == _KILL
    assert decide(code, own(machine), write | 0x40000000) == _KILL


@pytest.mark.parametrize(
    ("call", "arguments", "answer"),
    [
        ((9, 222), (0, 4096, 3, 0x22, -1, 0), _ALLOW),  # private, anonymous
        ((9, 222), (0, 4096, 0, 0x4022, -1, 0), _ALLOW),  # not reserved
        ((9, 222), (0, 4096, 3, 0x21, -1, 0), _KILL),  # shared
        ((9, 222), (0, 4096, 3, 0x23, -1, 0), _KILL),  # shared, validated
        ((9, 222), (0, 4096, 1, 0x02, 4, 0), _KILL),  # of a file
        ((9, 222), (0, 4096, 3, 0x2022, -1, 0), _KILL),  # locked
        ((9, 222), (0, 4096, 3, 0x40022, -1, 0), _KILL),  # of huge pages
        ((56, 220), (_THREAD,), _ALLOW),
        ((56, 220), (_THREAD | 0x400000,), _ALLOW),
        ((56, 220), (0x1200011,), _KILL),  # fork
        ((56, 220), (0x4111,), _KILL),  # vfork
        ((56, 220), (_THREAD | 0x10000000,), _KILL),  # a user namespace
        ((56, 220), (0,), _KILL),
        ((435, 435), (0,), 0x50000 | errno.ENOSYS),  # clone3
        ((72, 25), (1, 1), _ALLOW),
        ((72, 25), (1, 8), _KILL),  # F_SETOWN
        ((72, 25), (1, 1031), _KILL),  # F_SETPIPE_SZ
        ((302, 261), (0, 2), _ALLOW),
        ((302, 261), (1, 2), _KILL),
        ((234, 131), (_OWN, 1, 6), _ALLOW),
        ((234, 131), (_OWN + 1, 1, 6), _KILL),
        ((257, 56), (-100,), 0x50000 | errno.EACCES),  # openat
    ],
)
def test_a_call_is_allowed_for_what_a_job_needs(
    machine: str, call: tuple[int, int], arguments: tuple[int, ...], answer: int
) -> None:
    words = [argument & (1 << 64) - 1 for argument in arguments]
    assert decide(calls.program(machine, _OWN), own(machine), call[_PLACES[machine]], *words) == answer


def test_the_numbers_are_linuxs(machine: str) -> None:
    header = _HEADERS[machine]
    if not header.exists():
        pytest.skip("Linux's headers are not installed")
    found = {
        name: int(number)
        for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    }
    found.setdefault("newfstatat", found.get("fstatat", 0))
    for table in (calls._ALLOWED, calls._REFUSED, calls._UNKNOWN):
        for name, numbers in table.items():
            assert (name, numbers[_PLACES[machine]]) == (name, found.get(name))


def test_an_architecture_that_is_not_known_has_no_filter() -> None:
    with pytest.raises(OSError, match="not known on riscv64"):
        calls.program("riscv64", _OWN)


def test_this_machine_is_known() -> None:
    assert calls.program(platform.machine(), _OWN)
