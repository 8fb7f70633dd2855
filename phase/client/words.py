"""Finds the words of a job that no node takes, before anything is sent."""

import re
from collections.abc import Iterable

from phase.client.errors import ClientError

_NAMES = {
    "job id": (re.compile(r"[0-9A-Za-z._:-]+"), "letters, digits and . _ : -"),
    "nonce": (re.compile(r"[0-9A-Za-z._:+/=-]*"), "letters, digits and . _ : + / = -"),
}
_MOST = 128


def check_name(what: str, text: str) -> None:
    """Check a name that a client gives a job.

    Args:
        what: `job id` or `nonce`.
        text: the name.

    Raises:
        ClientError: a node would refuse it; says how it differs.
    """
    pattern, allowed = _NAMES[what]
    if len(text) > _MOST or (what == "job id" and not text):
        least = 1 if what == "job id" else 0
        raise ClientError(f"the {what} has {len(text)} characters; the limits are {least} and {_MOST}")
    if not pattern.fullmatch(text):
        raise ClientError(f"the {what} {text!a} has other characters than {allowed}")


def check_text(what: str, texts: Iterable[str]) -> None:
    """Check that words can be sent, as UTF-8.

    Args:
        what: they are, for people: `argument`.
        texts: the words. Bytes of a command line that are not UTF-8 arrive as surrogates.

    Raises:
        ClientError: one cannot.
    """
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ClientError(f"the {what} {text[:80]!a} is not UTF-8, as words for nodes must be") from None
