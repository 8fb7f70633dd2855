"""A LAN on which everything lies at once, beside one honest provider: the machine boots, a little later.

The liars share one port of the segment. They lie in multicast DNS (broken records, a conflict with every
name, a flood), as DHT nodes around the place that is asked for, and as providers that keep a client busy.
The honest provider starts when all of them are at work, so it finds its name taken.
"""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import host
from lab.net.hostport import HostPort, refusal
from lab.plugin import Record
from lab.qemu.vm import VM
from lab.topology import Lab
from scenarios.images import CHANNEL, Release
from scenarios.loop import PORT, Loop, mark
from scenarios.serving import serving

#: What the hostile providers do. Each takes a client's time, and none needs keys that the client believes.
PROVIDERS = ("slow-json", "says-nothing", "slow-headers", "slow-body", "endless-headers", "truncated")
#: Port of the first of them, which the machine is told to ask first.
_FIRST = PORT + 100
#: Seconds that a boot may lose on a host of ordinary speed.
LOST = 45.0


@contextlib.contextmanager
def _running(port: HostPort, word: str, *command: str, lines: int = 1) -> Iterator[None]:
    """A program of the liars, from the moment when it says this word."""
    process = subprocess.Popen(
        port.command("setpriv", "--pdeathsig", "TERM", sys.executable, "-m", *command),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        for _ in range(lines):
            assert word in process.stdout.readline(), f"{command[0]} did not start"
        yield
        assert process.poll() is None, f"{command[0]} ended: nothing lied"
    finally:
        process.terminate()
        process.communicate(timeout=60)


@contextlib.contextmanager
def _lying(evil: HostPort, honest: str, arch: str, root: Path) -> Iterator[None]:
    here = str(evil.address.ip)
    ports = [str(_FIRST + number) for number in range(len(PROVIDERS))]
    providers = ["fixtures.hostile", "serve", *PROVIDERS, "--bind", here, "--port", ports[0]]
    where = ["--bind", here, "--channel", CHANNEL, "--arch", arch]
    with (
        _running(evil, " on http://", *providers, "--root", str(root), lines=len(PROVIDERS)),
        _running(evil, "lying on", "fixtures.hostile.dht", *where, "--port", str(PORT), "--peer", honest),
        _running(evil, "lying in", "fixtures.hostile.mdns", *where, "--packets", "20", "--tell", *ports),
    ):
        yield


def _seconds(client: VM) -> float:
    """From the kernel's first mark to the receipt."""
    return mark(client, "job").arrived - mark(client, "kernel").arrived


@pytest.mark.lab(memory=1200, vcpus=1.25, seconds=120)
def test_a_machine_boots_on_a_hostile_lan(
    lab: Lab,
    record: Record,
    record_property: Callable[[str, object], None],
    release: Release,
    arch: str,
    tmp_path: Path,
) -> None:
    if why := refusal():
        pytest.skip(why)
    loop = Loop(lab, record, release, arch, tmp_path)
    evil, good = lab.host_port("evil", loop.lan), lab.host_port("good", loop.lan)
    node = f"{good.address.ip}:{PORT}"
    with serving(release.directory, "--port", str(PORT), port=good):
        quiet = loop.boot_vm(f"phase.dht={node}", name="quiet")
        loop.reaches_job(quiet)
        quiet.stop()
    with (
        _lying(evil, node, arch, tmp_path / "root"),
        serving(release.directory, "--port", str(PORT), port=good) as url,
    ):
        named = f"http://{evil.address.ip}:{_FIRST}"
        client = loop.boot_vm(f"phase.provider={named} phase.dht={evil.address.ip}:{PORT},{node}")
        client.wait_mark("job", timeout=300)
        status = good.run("curl", "-sS", f"{url}/status")
    trusted = [found for found in client.marks if found.step == "trust" and found.outcome == "ok"]
    assert [found.facts["provider"] for found in trusted] == [url]
    said = client.console.text
    assert f"not from {named}: 2.root.json is not usable JSON" in said, said[-2000:]
    assert '"running":true' in status, status
    lost = _seconds(client) - _seconds(quiet)
    record_property("seconds_lost", round(lost, 1))
    print(f"the boot took {_seconds(quiet):.1f} s on a quiet LAN, and lost {lost:.1f} s on the hostile one")
    assert lost < LOST * host.factor()
    loop.handed_over(client)
    loop.receipt_holds(client)
    loop.report("hostile LAN", client)
