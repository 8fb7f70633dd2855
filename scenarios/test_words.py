"""What a person reads on a machine's console, and whether what was typed at its boot menu is understood."""

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.net.hostport import refusal
from lab.plugin import Record
from lab.qemu.vm import VM
from lab.topology import Lab
from scenarios.images import CHANNEL, Release
from scenarios.loop import PORT, Loop
from scenarios.serving import serving


@pytest.fixture
def loop(lab: Lab, record: Record, release: Release, arch: str, tmp_path: Path) -> Loop:
    return Loop(lab, record, release, arch, tmp_path)


@contextlib.contextmanager
def _served(loop: Loop, *options: str) -> Iterator[str]:
    """The session's release, served on the host; the provider's address."""
    if why := refusal():
        pytest.skip(why)
    port = loop.lab.host_port("provider", loop.lan)
    with serving(loop.release.directory, "--port", str(PORT), "--channel", CHANNEL, *options, port=port):
        yield str(port.address.ip)


@pytest.mark.lab(vcpus=0.7, seconds=45)
def test_a_named_provider_is_dead_and_a_good_one_answers_mdns(loop: Loop) -> None:
    """First the one that was named, then the others, in the same attempt."""
    with _served(loop, "--arch", loop.arch) as address:
        dead = f"http://{loop.lan.network.network_address + 200}:{PORT}"
        client = loop.boot_vm(f"phase.provider={dead}")
        client.wait_mark("job", timeout=180)
    found = [mark for mark in client.marks if mark.step == "discover" and mark.outcome == "ok"]
    assert [mark.facts["source"] for mark in found] == ["cmdline", "mdns"]
    assert found[1].facts["provider"] == f"http://{address}:{PORT}"
    text = client.console.text
    assert text.count(f"phase: trust: not from {dead}: ") == 1
    assert "phase: no provider that was named helps; looking for others" in text
    client.console.wait_line("phase: the hello job has passed; its receipt is /run/phase/", timeout=60)
    assert "phase: the system is up" in client.console.text
    loop.report("named provider is dead", client)
    loop.receipt_holds(client)


@pytest.mark.lab(vcpus=0.5, seconds=30)
def test_a_provider_without_its_scheme_is_understood(loop: Loop) -> None:
    with _served(loop, "--no-mdns") as address:
        for number, (typed, read) in enumerate(
            (typed, f"http://{address}:{PORT}")
            for typed in (f"{address}:{PORT}/", f"HTTP://{address}:{PORT}", address)
        ):
            client = loop.boot_vm(f"phase.provider={typed} phase.mdns=off", name=f"client{number}")
            trusted = client.wait_mark("trust", timeout=90)
            assert trusted.facts["provider"] == f"http://{address}:{PORT}"
            said = f"phase: on the kernel command line: phase.provider={typed} is read as {read}"
            assert said in client.console.text
            client.stop()


@pytest.mark.lab(vcpus=0.5, seconds=40)
def test_with_quiet_and_a_low_log_level_each_failure_is_seen_once(loop: Loop) -> None:
    """The default line of some distributions showed nothing; without it each failure stood three times."""
    nobody = f"http://{loop.lan.network.network_address + 200}:{PORT}"
    client = loop.boot_vm(f"phase.provider={nobody} phase.mdns=off phase.timeout=25 loglevel=3")
    client.console.wait_line("phase: next: a shell on this console", timeout=120)
    lines = [line for line in client.console.text.splitlines() if "phase" in line]
    assert not [line for line in lines if "phase-mark" in line]
    end = next(number for number, line in enumerate(lines) if "phase: giving up at trust: " in line)
    assert len([line for line in lines[:end] if "not from" in line]) == 1
    assert [line for line in lines[:end] if "phase: trying again in " in line]
    assert lines[end + 1].startswith(f"phase:   {nobody}: no connection")
    assert len(lines) < 25, "it fits a screen"


#: A PC's screen in text mode: where its memory is, columns and rows; each character has a byte of colour.
_TEXT, _COLUMNS, _ROWS = 0xB8000, 80, 25


def _read_screen(vm: VM, file: Path) -> list[str]:
    """The lines on a screen in text mode."""
    vm.qmp("pmemsave", val=_TEXT, size=2 * _COLUMNS * _ROWS, filename=str(file))
    text = file.read_bytes()[::2].decode("cp437").replace("\0", " ")
    return [text[start : start + _COLUMNS].rstrip() for start in range(0, len(text), _COLUMNS)]


@pytest.mark.lab(vcpus=0.7, seconds=60)
def test_a_screen_shows_plain_lines_to_the_end(loop: Loop) -> None:
    """With no console but a screen, the system's marks stood on it, and no line that said it had worked."""
    if loop.arch != "x86_64":
        pytest.skip("only a PC has a screen whose text can be read")
    with _served(loop, "--arch", loop.arch):
        client = loop.boot_vm("console=tty0", on=False)
        line = client.argv.index("-append") + 1
        client.argv[line] = client.argv[line].replace("console=ttyS0,115200 ", "")
        client.argv += ["-device", "VGA"]
        client.start()
        rows: list[str] = []
        end = time.monotonic() + 400
        # The whole line: a screen is read while it is written to.
        while not [
            row for row in rows if re.search("phase: the hello job has (passed; its receipt|failed: )", row)
        ]:
            assert time.monotonic() < end, "\n".join(rows)
            time.sleep(1)
            rows = _read_screen(client, loop.work / "text")
    said = [row for row in rows if "phase" in row]
    assert "phase: the system is up" in said
    # Behind the prompt of the shell that this release asks for.
    ends = [n for n, row in enumerate(rows) if "phase: the hello job has passed; " in row]
    assert len(ends) == 1, "\n".join(rows)
    assert not [row for row in said if "mark" in row], "marks are for machines"
    # A receipt's path may take a second row; text of the kernel before is gone.
    assert [row for row in rows[ends[0] + 2 :] if row] == []


@pytest.mark.lab(vcpus=0.5, seconds=30)
def test_a_rescue_shell_without_a_keyboard_says_so(loop: Loop) -> None:
    """Cloud kernels have no USB: what is typed at the screen arrives by PS/2, or not at all."""
    without = "console=tty0 i8042.nokbd phase.timeout=3 phase.mdns=off phase.provider=http://127.0.0.1:9"
    client = loop.boot_vm(without, name="without")
    client.console.wait_line(
        "phase: this kernel finds no keyboard: nothing typed at the screen arrives", timeout=90
    )
    client.stop()
    if loop.arch == "x86_64":
        client = loop.boot_vm(without.replace("i8042.nokbd ", ""), name="with")
        client.console.wait_line("phase: next: a shell on this console", timeout=90)
        time.sleep(5)  # what it would say comes within three
        assert "no keyboard" not in client.console.text
