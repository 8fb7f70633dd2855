"""Signed envelopes and receipts."""

from phase import dsse
from phase.identity import Identity
from phase.jobs import receipt
from phase.jobs.errors import JobError
from tests.fuzz.publishing import short

NODE = Identity.from_seed(b"\1" * 32)


def envelope(data: bytes) -> None:
    """A DSSE envelope."""
    try:
        body = dsse.verify(data, keys=[NODE.public_key], payload_type="text/plain")
    except dsse.DsseError as error:
        short(error)
    else:
        assert body == b"body"


def receipts(data: bytes) -> None:
    """A receipt, in its envelope; then the same text as a body that was really signed."""
    data = data.decode("utf-8", "ignore").encode()
    for offered in (data, dsse.sign(receipt.PAYLOAD_TYPE, data, [NODE])):
        try:
            receipt.verify(offered, key=NODE.public_key)
        except (JobError, dsse.DsseError) as error:
            short(error)
