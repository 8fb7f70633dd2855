"""The page "Boot your first machine" (first-boot.md), and the seed of serving.md, as they are printed."""

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import pages
from tests.phase.provider.service import serving

PAGE = "docs/use/first-boot.md"
EMULATORS = {"x86_64": "qemu-system-x86_64", "arm64": "qemu-system-aarch64"}
SECRETS = {"PHASE_RELEASE_COST": "interactive", "PHASE_RELEASE_PASSPHRASE": "a passphrase for the docs"}
#: Seconds from power-on to the job, on a busy host without KVM.
_BOOT_SECONDS = 600


def told(page: str, arch: str) -> list[pages.Block]:
    """The blocks of a page for an architecture: where the page says `x86_64`, another may be written."""
    return [
        block
        if "qemu-system" in "".join(block.lines)
        else dataclasses.replace(block, lines=tuple(line.replace("x86_64", arch) for line in block.lines))
        for block in pages.chosen(page, "test_the_page")
    ]


@contextlib.contextmanager
def started(command: str, directory: Path) -> Iterator[Path]:
    """A command of the page, as somebody types it; its console."""
    console = directory / "console"
    with console.open("wb") as out:
        process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        try:
            yield console
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def wait_for(pattern: str, console: Path) -> str:
    """What a console has said, once it has said that."""
    end = time.monotonic() + _BOOT_SECONDS
    while time.monotonic() < end:
        said = console.read_text(errors="replace").replace("\r", "")
        if re.search(pattern, said):
            return said
        time.sleep(0.5)
    raise AssertionError(f"no {pattern} in {_BOOT_SECONDS} s:\n{said[-3000:]}")


@pytest.mark.lab(vcpus=1, memory=1024, seconds=120)
@pytest.mark.usefixtures("lab")  # for its lease
def test_the_page(arch: str, tmp_path: Path) -> None:
    """From nothing to the job's result: build, sign, serve, boot."""
    blocks = told(PAGE, arch)
    typed = {block: "".join(block.lines) for block in blocks}
    prepare = [block for block, text in typed.items() if "$ phase serve" not in text and "qemu" not in text]
    (serve,) = [block for block, text in typed.items() if "$ phase serve" in text]
    (boot,) = [block for block, text in typed.items() if EMULATORS[arch] in text]
    pages.run(
        [*prepare, *told("docs/use/serving.md", arch)], tmp_path, pages.environment(tmp_path, SECRETS), 600
    )
    assert serve.steps == [("phase serve --artifacts repo", [])]
    ((command, _),) = boot.steps
    options = ("--bind", "127.0.0.1", "--port", "0", "--no-mdns", "--no-dht")
    with contextlib.ExitStack() as stack:
        url, _ = stack.enter_context(serving(tmp_path / "repo", *options))
        # Port 8080 of this host may be somebody else's.
        command = command.replace(":8080", f":{url.rpartition(':')[2]}")
        said = wait_for(r"phase: the hello job has .*\n", stack.enter_context(started(command, tmp_path)))
    assert '"outcome":"ok"' in (line := next(line for line in said.splitlines() if '"step":"job"' in line))
    assert '"stdout":"dlroW ,olleH"' in line
    text = "".join((pages.PROJECT / page).read_text() for page in (PAGE, "README.md"))
    shown = re.findall(r"^phase: (?:looking|starting|the system|the hello job).*", text, re.MULTILINE)
    # The pages leave out the receipt's name.
    said = re.sub(r"(?<=/run/phase/receipts/)\w+(?=\.json)", "...", said)
    printed = {pages.plain(line) for line in said.splitlines()}
    assert len(shown) == 8
    assert {pages.plain(line.replace("x86_64", arch)) for line in shown} <= printed
