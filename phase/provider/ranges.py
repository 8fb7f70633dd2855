"""Decides conditional and range requests from header text alone.

Source: RFC 9110, sections 13 and 14.
"""

import re
from typing import NamedTuple

_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*\Z")
_ETAG = re.compile(r'(?:W/)?"([\x21\x23-\x7e\x80-\xff]*)"')


class Whole(NamedTuple):
    """Send everything."""


class Part(NamedTuple):
    """Send `length` bytes from `first`."""

    first: int
    length: int


class Unsatisfiable(NamedTuple):
    """No byte of the file is in the range."""


def not_modified(if_none_match: str | None, etag: str) -> bool:
    """Whether the client has this representation already. The comparison is weak, as the RFC asks."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or etag in _ETAG.findall(if_none_match)


def precondition_failed(if_match: str | None, etag: str) -> bool:
    """Whether the client wants another representation than this. The comparison is strong."""
    if if_match is None or if_match.strip() == "*":
        return False
    return etag not in _ETAG.findall(re.sub(r'W/"[^"]*"', "", if_match))


def select(range_: str | None, if_range: str | None, etag: str, length: int) -> Whole | Part | Unsatisfiable:
    """Choose the part of a file to send.

    Args:
        range_: the Range field.
        if_range: the If-Range field; only a strong entity tag can match, dates never do.
        etag: of the file, without quotes.
        length: of the file, bytes.

    Returns:
        The whole file if the field is missing, has several ranges or is malformed: a server may ignore
        such a field, and no client needs one to fetch a release.
    """
    if range_ is None or (if_range is not None and if_range.strip() != f'"{etag}"'):
        return Whole()
    match = _RANGE.match(range_)
    if match is None or match.groups() == ("", ""):
        return Whole()
    start, end = match.groups()
    if not start:
        suffix = min(int(end), length)
        return Part(length - suffix, suffix) if suffix else Unsatisfiable()
    first = int(start)
    last = min(int(end), length - 1) if end else length - 1
    if end and int(end) < first:
        return Whole()
    if first >= length:
        return Unsatisfiable()
    return Part(first, last - first + 1)
