"""A seed boots from web servers that know nothing of Phase: one without ranges, one that sends chunks."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.net.hostport import HostPort, refusal
from lab.plugin import Record
from lab.topology import Lab
from phase.release import export
from scenarios.images import Release
from scenarios.loop import PORT, Loop, mark


@contextlib.contextmanager
def served(tree: Path, kind: str, port: HostPort) -> Iterator[str]:
    """A directory behind such a server; its URL."""
    command = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "fixtures.plain", str(tree)]
    command += ["--kind", kind, "--bind", str(port.address.ip), "--port", str(PORT)]
    process = subprocess.Popen(port.command(*command), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.mark.lab(seconds=60)
@pytest.mark.parametrize("kinds", [("chunked",), ("plain", "chunked")], ids="-".join)
def test_a_seed_boots_from_plain_web_servers(
    lab: Lab, record: Record, release: Release, arch: str, tmp_path: Path, kinds: tuple[str, ...]
) -> None:
    """An exported release, behind a proxy that sends chunks; and beside it Python's own server."""
    if why := refusal():
        pytest.skip(why)
    loop = Loop(lab, record, release, arch, tmp_path)
    export.export(release.repository, tmp_path / "tree")
    with contextlib.ExitStack() as stack:
        urls = [
            stack.enter_context(served(tmp_path / "tree", kind, lab.host_port(kind, loop.lan)))
            for kind in kinds
        ]
        client = loop.boot_vm(f"phase.provider={','.join(urls)} phase.mdns=off")
        loop.reaches_job(client)
    loop.handed_over(client)
    loop.receipt_holds(client)
    assert mark(client, "trust").facts["provider"] in urls
    loop.report(f"plain web servers ({', '.join(kinds)})", client)
