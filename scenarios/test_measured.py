"""Measured boot (docs/use/measured-boot.md): what a machine's TPM holds is what was predicted."""

from pathlib import Path

import pytest

from lab.plugin import Record
from lab.topology import Lab
from phase import measured
from scenarios.images import Release
from scenarios.loop import Loop, mark


@pytest.fixture
def loop(lab: Lab, record: Record, release: Release, arch: str, tmp_path: Path) -> Loop:
    return Loop(lab, record, release, arch, tmp_path)


@pytest.mark.lab(seconds=60)
def test_the_tpm_holds_what_was_predicted(loop: Loop) -> None:
    """Another command line is another value; and a register of firmware's is not touched."""
    with loop.provided():
        client = loop.boot_vm(tpm=True)
        loop.reaches_job(client)
        loop.report("measured boot", client)
    assert mark(client, "handoff").facts["pcr"] == measured.PCR
    shell = client.shell()
    # The kernel for ARM64 has no driver for it built in.
    shell.succeed("while read -r module; do insmod $module; done </etc/modules-tpm; true")
    held = shell.succeed(f"cat /sys/class/tpm/tpm0/pcr-sha256/{measured.PCR}").strip().lower()
    assert held == loop.predicted(client.append)
    assert held != loop.predicted(client.append.replace("phase.job=hello", "phase.job=other"))
    assert held != loop.predicted(f"{client.append} phase.nowrite")
