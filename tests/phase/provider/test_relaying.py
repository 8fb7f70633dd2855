"""A provider that is a relay, too."""

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import pytest

from phase.identity import Identity
from phase.peer.iroh import IrohTransport, Options
from phase.peer.transport import Address
from tests.phase.provider.conftest import Publish
from tests.phase.provider.service import COMMAND, get, serving


async def _transport(*relays: str) -> IrohTransport:
    return await IrohTransport.start(Identity.ephemeral(), Options(listen=("127.0.0.1:0",), relays=relays))


async def test_peers_meet_at_a_provider(publish: Publish) -> None:
    with serving(publish(), "--relay-for", "open") as (url, process):
        server, client = await _transport(url), await _transport(url)
        try:
            connection = await client.connect(Address(server.key, (), (url,)), 20)
            stream = await connection.open()
            await stream.send(b"x")
            assert await (await (await server.accept()).accept()).receive(9) == b"x"
            shown = await asyncio.to_thread(get, f"{url}/metrics")
            assert b"\nphase_relay_members 2\n" in shown
            # Releases are served as ever, and the end does not wait for peers.
            assert await asyncio.to_thread(get, f"{url}/manifest.json")
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 10) == 0
        finally:
            await client.close()
            await server.close()


def test_a_provider_is_no_relay_unless_it_is_told(publish: Publish) -> None:
    with serving(publish()) as (url, _):
        for path in ("relay", "ping", "seen"):
            with pytest.raises(OSError, match="404"):
                get(f"{url}/{path}")
        assert b"phase_relay" not in get(f"{url}/metrics")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--relay-for", "open", "--processes", "2"], "--relay-for needs one process"),
        (
            ["--relay-for", "none"],
            "none cannot be read: No such file or directory. Give keys of 64 hex digits",
        ),
    ],
    ids=["processes", "file"],
)
def test_wrong_use_is_named(publish: Publish, tmp_path: Path, options: list[str], said: str) -> None:
    told = subprocess.run(
        [*COMMAND, "--artifacts", str(publish()), *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert told.returncode
    assert said in told.stderr
