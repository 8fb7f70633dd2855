"""SHA-256, whichever library computes it."""

import hashlib
import subprocess
import sys
from collections.abc import Callable

import pytest

from phase import digest

DATA = bytes(range(256)) * 8192


@pytest.mark.parametrize("compute", [digest._by_hashlib, digest._by_sodium])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_both_say_the_same(
    compute: Callable[[digest.Buffer], str], kind: Callable[[bytes], digest.Buffer]
) -> None:
    for length in (0, 1, 55, 56, 64, 1 << 20, (1 << 20) + 1, len(DATA)):
        assert compute(kind(DATA[:length])) == hashlib.sha256(DATA[:length]).hexdigest()
    # FIPS 180-4's own example.
    assert compute(kind(b"abc")).startswith("ba7816bf8f01cfea")


def test_a_part_of_a_buffer() -> None:
    view = memoryview(bytearray(DATA))[7:1000]
    assert digest._by_sodium(view) == digest.sha256_hex(view) == hashlib.sha256(DATA[7:1000]).hexdigest()


@pytest.mark.parametrize(("hidden", "chosen"), [("none", "_by_hashlib"), ("_hashlib", "_by_sodium")])
def test_without_openssl_it_is_libsodium(hidden: str, chosen: str) -> None:
    program = (
        f"import sys; sys.modules[{hidden!r}] = None\n"
        "from phase import digest\n"
        "print(digest.sha256_hex.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == chosen
