"""What a module costs to compile, and that it is bounded whatever it is padded with."""

import base64
import os
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.binary import leb, section
from phase.jobs import binary
from phase.jobs.limits import MIB, Limits
from phase.jobs.runner import Job, execute
from phase.jobs.status import Exited, Rejected

Wat = Callable[[str], bytes]
_START = b"\x01\x06_start\x00\x00"


def _functions(count: int, body: bytes = b"\x0b") -> bytes:
    one = leb(len(body) + 1) + b"\x00" + body
    code = section(10, leb(count) + one * count)
    types = section(1, b"\x01\x60\x00\x00")
    return b"\0asm\1\0\0\0" + types + section(3, leb(count) + b"\0" * count) + section(7, _START) + code


@pytest.mark.parametrize("padding", [0, 28 * MIB])
def test_a_million_functions_are_refused_before_they_are_compiled(padding: int) -> None:
    module = _functions(1_000_000) + section(0, b"\4note" + b"\0" * padding)
    done = execute(Job(module, limits=Limits(wall_seconds=20)))
    assert isinstance(done.status, Rejected)
    assert done.status.reason.startswith("module needs more than ")
    assert done.status.reason.endswith(" MB to compile")
    assert done.fuel_used == 0


@pytest.mark.parametrize(
    "body",
    [
        b"\x02\x40" * 60_000 + b"\x0b" * 60_001,
        b"\x10\0" * 60_000 + b"\x0b",
        b"\x41\1\x41\2\x6a\x1a" * 200_000 + b"\x0b",
    ],
    ids=["nested", "calls", "giant"],
)
def test_a_compiler_out_of_memory_says_how_much_it_had(body: bytes) -> None:
    done = execute(Job(_functions(1, body), limits=Limits(compile_bytes=4 * MIB)))
    assert done.status == Rejected("module needs more than 4 MB to compile")


def test_an_assembler_out_of_memory_says_how_much_it_had() -> None:
    text = b"(module " + b"(func)" * 200_000 + b")"
    done = execute(Job(text, limits=Limits(compile_bytes=4 * MIB)))
    assert done.status == Rejected("module needs more than 4 MB to compile")


def test_what_the_compiler_may_have_follows_the_code_and_nothing_else() -> None:
    small = binary.read(_functions(10))
    padded = binary.read(_functions(10) + section(0, b"\4note" + b"\0" * MIB))
    assert padded.code_bytes == small.code_bytes
    assert binary.compile_bytes(padded, MIB << 10) == binary.compile_bytes(small, MIB << 10)
    assert padded.module == small.module
    large = binary.read(_functions(10, b"\x41\1\x1a" * 1000 + b"\x0b"))
    assert binary.compile_bytes(large, MIB << 10) > binary.compile_bytes(small, MIB << 10)
    assert binary.compile_bytes(large, 7) == 7
    ram = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert binary.compile_bytes(small, 1 << 50) == ram // 2


def test_a_module_with_more_sections_than_there_are_kinds_is_left_as_it_is() -> None:
    module = _functions(1) + section(5, b"\0") * 40
    assert binary.read(module).module == module
    assert isinstance(execute(Job(module)).status, Rejected)


def test_custom_sections_anywhere_are_dropped() -> None:
    plain = _functions(2)
    noted = b"\0asm\1\0\0\0" + section(0, b"\1a") * 1000 + plain[8:] + section(0, b"\4name\0")
    assert binary.read(noted).module == binary.read(plain).module
    assert execute(Job(noted)).status == Exited(0)


def test_what_is_found_in_a_module(wat: Wat) -> None:
    shape = binary.read(
        wat(
            """(memory 1) (memory 2) (table 1 funcref) (func) (func $f (drop (call $fd_close (i32.const 1))))
            (export "f" (func $f)) (export "_start" (func $f))"""
        )
    )
    assert (shape.functions, shape.memories, shape.tables) == (2, 2, 1)
    assert (shape.imports, shape.exports, shape.start) == ({b"fd_close"}, 2, 1)
    assert shape.table_export(0) in shape.module


@given(st.binary(max_size=200))
def test_any_bytes_can_be_read(data: bytes) -> None:
    assert binary.read(data).module == data
    binary.read(b"\0asm\1\0\0\0" + data)


@given(st.data())
def test_a_damaged_module_can_be_read(data: st.DataObject) -> None:
    module = bytearray(_functions(3))
    module[data.draw(st.integers(8, len(module) - 1))] = data.draw(st.integers(0, 255))
    binary.read(bytes(module))


def test_many_export_sections_grow_no_more_than_one() -> None:
    """Found by fuzzing: each of them was given the names of all tables."""
    module = base64.b64decode(
        "AGFzbQEAAAAHE14GbXJreQIABl9BAGFzbQEAAAAHEwIGbWVtcmt5AgBfBm1zYQEAAAAHE14GbXJmeQIABl9BAGFzbQ"
        "EAAAAHEwIGbWVtcmt5AgAGX0GlBQMBCgEHCAEBBWEAAAAAAAAgASEEBwwBAZ8AAQMCAQEFAwFBpQUDAQoBBwgBAQVh"
        "AAEhnwABAwIBAQUDAQoBBwgBAQVhZ2Fpbg=="
    )
    assert len(binary.read(module).module) <= len(module) + 64 * binary.MAX_TABLES
