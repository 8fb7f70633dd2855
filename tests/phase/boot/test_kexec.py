import subprocess
import sys
from pathlib import Path

import pytest

from phase.boot.errors import HandoffError
from phase.boot.kexec import Image, Segment, load


@pytest.mark.parametrize("content", [(4000, 200), (-1, 8), (0, -1)])
def test_no_segment_reaches_out_of_the_file(tmp_path: Path, content: tuple[int, int]) -> None:
    """Refused before the running kernel hears of it; the file can be used again."""
    path = tmp_path / "initrd"
    path.write_bytes(bytes(4096))
    with path.open("r+b") as file:
        with pytest.raises(HandoffError, match="not in a file of 4096"):
            load(Image(0, (Segment(0, 4096, content),)), file.fileno())
        file.truncate(8192)


def test_no_card_is_up_when_the_next_kernel_starts() -> None:
    """A card that is up still writes what it receives into memory that belongs to the next kernel then.

    In a network namespace of its own, where this process may start no kernel.
    """
    program = """
import subprocess
from phase.boot import kexec
from phase.boot.errors import HandoffError
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
try:
    kexec.start()
except HandoffError as error:
    print(error.what)
print(subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True).stdout)
"""
    # A user namespace of its own: no process in it can start another kernel, whoever runs the tests.
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "unshare failed" in done.stderr:
        pytest.skip(f"this host allows no user namespace: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    said, *cards = done.stdout.strip().splitlines()
    assert said.startswith("kexec: Operation not permitted")
    assert cards
    assert not [card for card in cards if ",UP" in card or "<UP" in card], cards
