"""The Python verifier says of every vector what the vectors say."""

import base64
import json
from collections import Counter
from typing import Any

import msgspec
import pytest

from fixtures.vectors import receipts as vectors
from fixtures.vectors.case import Vector
from phase.jobs import receipt as receipts
from phase.jobs.errors import ReceiptBindingError, ReceiptFormatError, ReceiptSignatureError

FOUND = vectors.vectors()


def verdict(each: Vector) -> tuple[str, str, Any]:
    """What the verifier says: the verdict, the field, the receipt."""
    asked: dict[str, Any] = dict(each.expect)
    try:
        found = receipts.verify(each.whole(), key=each.key, **asked)
    except ReceiptSignatureError:
        return "signature", "", None
    except ReceiptFormatError:
        return "format", "", None
    except ReceiptBindingError as error:
        return "binding", error.field, None
    return "accepted", "", found


@pytest.mark.parametrize("each", FOUND, ids=[each.name for each in FOUND])
def test_python_says_what_the_vector_says(each: Vector) -> None:
    assert verdict(each) == (each.verdict, each.field, each.receipt), each.why


def test_there_are_some_of_each_verdict() -> None:
    assert min(Counter(each.verdict for each in FOUND)[name] for name in vectors.VERDICTS) > 5


def test_the_file_has_the_vectors_as_they_are_made() -> None:
    told = json.loads(vectors.render())["vectors"]
    for each, written in zip(FOUND, told, strict=True):
        data = base64.b64decode(written["envelope"]).ljust(written.get("padded_to", 0))
        assert data == each.whole()
        if each.receipt is not None:
            assert msgspec.convert(written["receipt"], receipts.Receipt) == each.receipt
