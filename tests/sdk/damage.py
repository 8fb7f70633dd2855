"""Damages receipts before they are signed, as a node that lies might."""

import random
import re
from collections.abc import Callable

_NUMBERS = (
    *b"0 -0 1 -1 01 1.0 1e0 1E+2 .5 5. 9007199254740991 9007199254740992 9007199254740993".split(),
    *b"1e400 1e-400 -1e400 4294967295 4294967296 255 256 18446744073709551616 0.1e1 - +".split(),
    *b"NaN Infinity 0x1 1_000 25.125000000000001".split(),
)
_TEXTS = (
    *rb'"" "a" "\u0000" "\ud800" "\udc00\ud800" "\ud83e\udd80" "\uD83E\uDD80" "\u00E9" "\/"'.split(),
    *rb'"\x" "\u12" "__proto__" "0" "-1" "00" "constructor" "toString" "\u002b" "\b\f\n\r\t\\\""'.split(),
    *(
        b'"%b"' % each
        for each in (b"\xc3\xa9", b"\xf0\x9f\xa6\x80", b"\x7f", b"\xc3\x28", b"\xf4\x90\x80\x80")
    ),
    b'"\t"',
    rb'"\u 12"',
)
_VALUES = (b"null", b"true", b"false", b"{}", b"[]", b"[[]]", b'{"":{}}', b"{,}", b"[,]", b"nul", b"tru e")
_STRAY = (
    *(bytes([each]) for each in b' \n\t\r\x0b\x0c\xa0\x00\xff,:"\\}]{['),
    *(b"\xef\xbb\xbf", b"/**/", b"\xe2\x80\xa8"),
)
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9.]+(?:[eE][+-]?[0-9]+)?|null|true|false|[{}\[\],:]')


def _token(body: bytes, chance: random.Random) -> tuple[int, int]:
    return chance.choice([found.span() for found in _TOKEN.finditer(body)] or [(0, 0)])


def _replace(body: bytes, chance: random.Random) -> bytes:
    start, end = _token(body, chance)
    return body[:start] + chance.choice([*_NUMBERS, *_TEXTS, *_VALUES]) + body[end:]


def _number(body: bytes, chance: random.Random) -> bytes:
    spans = [found.span() for found in re.finditer(rb"(?<=:)-?[0-9.]+", body)] or [(0, 0)]
    start, end = chance.choice(spans)
    return body[:start] + chance.choice(_NUMBERS) + body[end:]


def _text(body: bytes, chance: random.Random) -> bytes:
    """Some other text, as a value or as the name of an object's field."""
    spans = [found.span() for found in re.finditer(rb'"(?:[^"\\]|\\.)*"', body)] or [(0, 0)]
    start, end = chance.choice(spans)
    return body[:start] + chance.choice(_TEXTS) + body[end:]


def _stray(body: bytes, chance: random.Random) -> bytes:
    place = chance.choice(_token(body, chance))
    return body[:place] + chance.choice(_STRAY) + body[place:]


def _drop(body: bytes, chance: random.Random) -> bytes:
    start, end = _token(body, chance)
    return body[:start] + body[end:]


def _double(body: bytes, chance: random.Random) -> bytes:
    start, end = _token(body, chance)
    return body[:end] + body[start:end] + body[end:]


def _swap(body: bytes, chance: random.Random) -> bytes:
    (start, end), (from_, to) = sorted([_token(body, chance), _token(body, chance)])
    if end > from_:
        return body
    return body[:start] + body[from_:to] + body[end:from_] + body[start:end] + body[to:]


def _flip(body: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(body)) if body else 0
    return body[:place] + bytes([chance.randrange(256)]) + body[place + 1 :]


def _escape(body: bytes, chance: random.Random) -> bytes:
    """The same text, with one of its characters written as an escape."""
    places = [found.start() for found in re.finditer(rb"[a-zA-Z0-9]", body)] or [0]
    place = chance.choice(places)
    return body[:place] + b"\\u%04x" % body[place] + body[place + 1 :]


def _more(body: bytes, chance: random.Random) -> bytes:
    """A field more, in some object."""
    places = [found.end() for found in re.finditer(rb"\{", body)] or [0]
    place = chance.choice(places)
    comma = b"" if body[place : place + 1] == b"}" else b","
    name, value = chance.choice(_TEXTS), chance.choice([*_NUMBERS, *_TEXTS, *_VALUES])
    return body[:place] + name + b":" + value + comma + body[place:]


def _twin(body: bytes, chance: random.Random) -> bytes:
    """A field twice, its name perhaps with an escape the second time."""
    pairs = [found.span() for found in re.finditer(rb'"[^"\\]*":(?:"[^"\\]*"|[0-9.]+|null)', body)]
    if not pairs:
        return body
    start, end = chance.choice(pairs)
    twin = body[start:end]
    if chance.random() < 0.5 and twin[1:2].isalnum():
        twin = b'"\\u%04x' % twin[1] + twin[2:]
    return body[:end] + b"," + twin + body[end:]


_WAYS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _replace, _number, _number, _text, _stray, _drop, _double, _swap, _flip, _escape, _escape, _more, _more,
    _twin,
)  # fmt: skip


def damaged(body: bytes, chance: random.Random) -> bytes:
    """A body with one, two or three things changed."""
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        body = chance.choice(_WAYS)(body, chance)
    return body
