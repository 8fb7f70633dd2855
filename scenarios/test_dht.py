"""A seed that nobody tells of a provider, and no multicast reaches one, asks the DHT."""

import subprocess
import sys
from pathlib import Path

import pytest

from lab.machine import Machine
from lab.net.hostport import refusal
from lab.net.packet import UDP, Packet
from lab.plugin import Record
from lab.topology import Lab
from scenarios.images import CHANNEL, Release
from scenarios.loop import PORT, Loop, mark
from scenarios.serving import serving


@pytest.fixture
def loop(lab: Lab, record: Record, release: Release, arch: str, tmp_path: Path) -> Loop:
    return Loop(lab, record, release, arch, tmp_path)


def _keeps(server: Machine, number: int) -> None:
    """Wait until so many announcements are kept there."""
    asked = f"wget -q -O - http://127.0.0.1:{PORT}/status | grep '\"held\":{number}[,}}]'"
    server.shell().wait_until_succeeds(asked, timeout=120)


@pytest.mark.lab(seconds=40)
def test_boots_from_whom_the_dht_names(loop: Loop) -> None:
    """A booted system is a node of it; the next one that boots finds it there, and joins."""
    server = loop.serve("phase.mdns=off", staged=True)
    node = f"{loop.address(server)}:{PORT}"
    _keeps(server, 1)
    client = loop.boot_vm(f"phase.mdns=off phase.dht={node}")
    loop.reaches_job(client)
    found = mark(client, "discover").facts
    assert (found["source"], found["provider"]) == ("dht", f"http://{node}")
    loop.handed_over(client)
    # The word is carried over, so that the new system announces itself through the same node.
    _keeps(server, 2)
    loop.report("DHT", client)


@pytest.mark.lab(seconds=40)
def test_a_local_machine_asks_nobody_elsewhere(loop: Loop) -> None:
    """In local mode not one packet goes to the DHT, neither from the seed nor from the system."""
    server = loop.serve(staged=True)
    node = f"{loop.address(server)}:{PORT}"
    client = loop.boot_vm(f"phase.mode=local phase.dht={node}")
    loop.reaches_job(client)
    assert mark(client, "discover").facts["source"] == "mdns"
    shell = client.shell()
    shell.wait_until_succeeds(
        f"wget -q -O - http://127.0.0.1:{PORT}/status | grep 'not asked for'", timeout=90
    )

    def of_the_dht(packet: Packet) -> bool:
        return packet.protocol == UDP and PORT in (packet.source_port, packet.destination_port)

    loop.lan.expect_none(of_the_dht, "packet of the DHT")
    loop.report("local mode, DHT named", client)


@pytest.mark.lab(seconds=40)
def test_lies_in_the_dht_stop_nobody(
    lab: Lab, record: Record, release: Release, arch: str, tmp_path: Path
) -> None:
    """Eight nodes around the place lie to whoever asks, and to the honest one; the seed knows both."""
    if why := refusal():
        pytest.skip(why)
    loop = Loop(lab, record, release, arch, tmp_path)
    evil, good = lab.host_port("evil", loop.lan), lab.host_port("good", loop.lan)
    liar, honest = f"{evil.address.ip}:{PORT}", f"{good.address.ip}:{PORT}"
    lies = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "fixtures.hostile.dht"]
    lies += ["--bind", str(evil.address.ip), "--port", str(PORT), "--channel", CHANNEL, "--arch", arch]
    with serving(release.directory, "--port", str(PORT), "--no-mdns", port=good) as url:
        process = subprocess.Popen(evil.command(*lies, "--peer", honest), stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            assert "lying on" in process.stdout.readline()
            client = loop.boot_vm(f"phase.mdns=off phase.dht={liar},{honest}")
            loop.reaches_job(client)
        finally:
            process.terminate()
            process.communicate(timeout=60)
    trusted = [
        found.facts["provider"] for found in client.marks if found.step == "trust" and found.outcome == "ok"
    ]
    assert trusted == [url]
    address = lab.address(client, loop.lan)

    def of_the_liar(packet: Packet) -> bool:
        """An answer that is more than a greeting: with all it has to tell."""
        told = packet.source_port is not None and PORT <= packet.source_port < PORT + 8
        told = told and packet.source == evil.address.ip and packet.destination == address
        return told and packet.protocol == UDP and packet.end - packet.payload > 1000

    assert loop.lan.seen(of_the_liar), "nobody lied to it"
    loop.handed_over(client)
    loop.report("lies in the DHT", client)
