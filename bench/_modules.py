"""Modules that are made for measurements."""

from fixtures.binary import leb, section

_HEADER = b"\0asm\x01\0\0\0"


def large(size: int) -> bytes:
    """A command of about so many bytes: many functions of arithmetic, each of which is called once.

    Args:
        size: bytes.
    """
    # Of one i32 to an i32: additions, multiplications, shifts and a loop.
    step = b"\x20\0\x41\x07\x6c\x20\0\x41\x03\x74\x6a\x22\0\x41\xff\x00\x71\x21\0"
    body = b"\0" + step * 20 + b"\x20\0\x0b"
    count = size // (len(body) + 9)
    calls = b"".join(b"\x10" + leb(number) for number in range(1, count + 1))
    start = b"\0\x41\x01" + calls + b"\x1a\x0b"
    bodies = b"".join(leb(len(each)) + each for each in [start, *[body] * count])
    return _HEADER + b"".join(
        (
            section(1, b"\x02\x60\0\0\x60\x01\x7f\x01\x7f"),
            section(3, leb(count + 1) + b"\0" + b"\x01" * count),
            section(5, b"\x01\0\x01"),
            section(7, b"\x02\x06_start\0\0\x06memory\x02\0"),
            section(10, leb(count + 1) + bodies),
        )
    )
