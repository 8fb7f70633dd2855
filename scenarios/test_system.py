"""What a system checks by itself, whoever started its kernel."""

from pathlib import Path

import pytest

from lab.plugin import Record
from lab.topology import Lab
from scenarios.images import CHANNEL, Release
from scenarios.loop import MEMORY, Loop


@pytest.fixture
def loop(lab: Lab, record: Record, release: Release, arch: str, tmp_path: Path) -> Loop:
    return Loop(lab, record, release, arch, tmp_path)


def test_refuses_a_rootfs_that_was_not_signed_for(loop: Loop) -> None:
    """One bit of it is wrong: nothing of it runs, and the machine starts again."""
    rootfs = loop.release.repository.manifest(CHANNEL, loop.arch).artifacts["rootfs"].sha256
    kernel, initrd, line = loop.release.system(
        loop.arch, loop.work, f"phase.channel={CHANNEL}", serves=(loop.arch,), flip=rootfs
    )
    vm = loop.lab.vm("system", arch=loop.arch, memory=MEMORY, kernel=kernel, initrd=initrd, append=line)
    vm.start()
    refused = vm.wait_mark("rootfs", outcome="refused", timeout=120)
    assert rootfs in str(refused.facts["reason"])
    vm.wait_off(timeout=60)
    assert "system" not in [mark.step for mark in vm.marks]
    loop.report("rootfs with a flipped bit", vm)


@pytest.mark.parametrize("cpu", ["qemu64", "core2duo"])
def test_an_old_processor_boots_and_refuses_jobs_by_name(loop: Loop, cpu: str) -> None:
    """The engine's wheel needs SSE4.1; the boot needs nothing of the kind."""
    if loop.arch != "x86_64":
        pytest.skip("the engine needs nothing beyond ARMv8.0, which every arm64 machine has")
    kernel, initrd, line = loop.release.system(
        loop.arch, loop.work, f"phase.channel={CHANNEL} phase.job=hello", serves=(loop.arch,)
    )
    vm = loop.lab.vm(
        "old", arch=loop.arch, memory=MEMORY, kernel=kernel, initrd=initrd, append=line, cpu=cpu
    )
    vm.start()
    job = vm.wait_mark("job", outcome="refused", timeout=180)
    assert "no SSE4.1" in str(job.facts["reason"])
    assert "system" in [mark.step for mark in vm.marks]
