"""Several providers at once: what one of them fails to bring, the others do."""

import time
from itertools import pairwise
from pathlib import Path

import pytest

from lab.net.faults import Faults
from lab.plugin import Record
from lab.qemu.vm import VM
from lab.topology import Lab
from scenarios.images import CHANNEL, Release
from scenarios.loop import PORT, Loop, mark

#: Bytes a second of one provider's cable: a release takes some ten seconds, so that there is a middle.
RATE = 3_000_000
#: Of a provider that crawls: one chunk takes it half a minute. Far below what a busy host emulates.
CRAWL = 30_000


@pytest.fixture
def loop(lab: Lab, record: Record, release: Release, arch: str, tmp_path: Path) -> Loop:
    return Loop(lab, record, release, arch, tmp_path)


def _serve(loop: Loop, name: str, rate: float = RATE) -> VM:
    server = loop.serve(name=name, staged=True)
    loop.lan.link(server).from_machine = Faults(rate=rate)
    return server


def _boot(loop: Loop, *servers: VM) -> VM:
    urls = ",".join(f"http://{loop.address(server)}:{PORT}" for server in servers)
    return loop.boot_vm(f"phase.provider={urls} phase.mdns=off")


def _sources(loop: Loop, client: VM) -> dict[str, int]:
    """Address to bytes, of all that came."""
    words = (word.rpartition("=") for word in str(mark(client, "fetch").facts["sources"]).split())
    found = {url.removeprefix("http://").removesuffix(f":{PORT}"): int(size) for url, _, size in words}
    manifest = loop.release.repository.manifest(CHANNEL, loop.arch)
    assert sum(found.values()) == sum(artifact.length for artifact in manifest.artifacts.values())
    return found


@pytest.mark.lab(seconds=50)
def test_a_provider_dies_in_the_middle(loop: Loop) -> None:
    """Its machine is switched off without a word."""
    dies, stays = _serve(loop, "dies"), _serve(loop, "stays")
    client = _boot(loop, dies, stays)
    client.wait_mark("trust", timeout=90)
    client.console.wait_line(r"phase: fetch: \S+ of \S+ MB, \S+ MB/s, \d+ s left", timeout=60)
    dies.stop()
    loop.reaches_job(client)
    sources = _sources(loop, client)
    assert 0 < sources[loop.address(dies)] < sources[loop.address(stays)]
    loop.report("provider dies", client)
    loop.handed_over(client)


@pytest.mark.lab(seconds=70)
def test_a_provider_is_cut_off_in_the_middle(loop: Loop) -> None:
    """Nothing passes on its cable any more, and nobody is told."""
    cut, stays = _serve(loop, "cut"), _serve(loop, "stays")
    client = _boot(loop, cut, stays)
    client.wait_mark("trust", timeout=90)
    time.sleep(4)
    loop.lan.link(cut).from_machine = Faults(partition=True)
    loop.reaches_job(client)
    sources = _sources(loop, client)
    assert 0 < sources[loop.address(cut)] < sources[loop.address(stays)]
    loop.report("provider cut off", client)
    loop.handed_over(client)


@pytest.mark.lab(vcpus=0.8, seconds=65)
def test_a_slow_provider_holds_nobody_up(loop: Loop) -> None:
    """One brings next to nothing; nobody waits for the chunks that it has begun."""
    slow, fast = _serve(loop, "slow", CRAWL), _serve(loop, "fast")
    client = _boot(loop, slow, fast)
    loop.reaches_job(client)
    sources = _sources(loop, client)
    assert sources[loop.address(fast)] > sum(sources.values()) * 0.8
    # It was asked for a dozen chunks, and gets no time for more than a few.
    kernel = loop.release.repository.manifest(CHANNEL, loop.arch).artifacts["kernel"]
    chunk = max(end - start for start, end in pairwise(kernel.starts))
    took = client.timeline({"kernel": "firmware", "kernel2": "handoff"})["fetch"]
    assert took < 4 * chunk / CRAWL
    loop.report("slow provider", client)
    loop.handed_over(client)
