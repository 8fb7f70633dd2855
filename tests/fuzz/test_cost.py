"""A quarter of a megabyte of one pattern costs each target little time and little memory."""

import resource
import time

import pytest

from tests.fuzz.targets import cases

#: What stands at the start of a long input, and what is repeated behind it.
BEGINNINGS = (
    b"",
    b'"',
    b"{",
    b'{"a":',
    b'{"signed":',
    b'{"signed": {"a": "',
    b"HTTP/1.1 200 OK\r\n",
    b"phase.provider=",
)
REPEATED = (
    *(b'"', b'\\"', b"\\", b"[", b'{"a":', b'"a":1,', b"9", b"-", b"1e", b" ", b"\n", b"a: b\r\n", b"%41"),
    *(b".", b",", b"\xff", b"\xc3\xa9", b"\0", b"x=y ", b"AAAA"),
)
#: Bytes of a long input: half of what a client takes of an answer whose length is not signed.
LONG = 256_000
#: Of those that cannot be longer, and of the one that costs a process each time.
SHORTER = {"cmdline": 8_000, "url": 8_000, "module": 20_000}
#: Processor seconds that a target may take for one input, and MiB that it may add to the process.
SECONDS, GROWN = 2.0, 64


@pytest.mark.parametrize("name", sorted(cases()))
def test_long_inputs_cost_little(name: str) -> None:
    run, longest = cases()[name].run, SHORTER.get(name, LONG)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for beginning in BEGINNINGS if name != "module" else BEGINNINGS[:1]:
        for token in REPEATED:
            data = (beginning + token * (longest // len(token)))[:longest]
            began = time.process_time()
            run(data)
            took = time.process_time() - began
            assert took < SECONDS, f"{took:.1f} s of processor time for {beginning!r} and {token!r} repeated"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    assert grown < GROWN, f"{grown} MiB more"
