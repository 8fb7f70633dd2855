import subprocess
import sys

import pytest

from phase.peer import batches

_PROGRAM = """
import asyncio, os, iroh
from phase.identity import Identity
from phase.peer import batches
from phase.peer.iroh import IrohTransport, Options

async def main():
    transport = await IrohTransport.start(Identity.ephemeral(), Options(listen=("127.0.0.1:0",)))
    await transport.close()

iroh.set_log_level(iroh.LogLevel.INFO)
batches._SINCE = {since}
before = os.uname()
asyncio.run(main())
assert os.uname() == before
"""


@pytest.mark.parametrize(("since", "refused"), [((99, 0), True), ((0, 0), False)])
def test_the_library_makes_none_on_a_linux_that_may_refuse_them(
    since: tuple[int, int], refused: bool
) -> None:
    """It fails, too, when a version of the library does not ask for the kernel: then this way is no more."""
    command = [sys.executable, "-c", _PROGRAM.format(since=since)]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ("GSO disabled: kernel too old (2.6." in told.stdout) == refused, told.stdout


@pytest.mark.parametrize(
    ("release", "refused"),
    [
        ("6.1.0-28-amd64", True),
        ("5.15.0", True),
        ("6.10.9", True),
        ("6.11.0", False),
        ("6.18.44-lab", False),
        ("7.0-rc1", False),
        ("", True),
        ("x", True),
    ],
)
def test_which_linux_may_refuse_them(release: str, refused: bool) -> None:
    assert batches.may_refuse(release) == refused
