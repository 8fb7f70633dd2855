"""The Debian package on a Debian with systemd: it serves machines, keeps its state, and leaves nothing."""

import re
import shutil
from pathlib import Path

import pytest

from lab.plugin import Record
from lab.shell import Shell
from lab.topology import Lab
from phase.release.export import export
from scenarios import debian_guest
from scenarios.images import CHANNEL, Release
from scenarios.loop import Loop, mark

PORT = 80
#: What changes on a machine by itself, or belongs to the system: logs, dpkg's own files, the lists of users.
_OTHERS = r"^/var/lib/(dpkg|systemd|private)|^/var/(log|cache|tmp)|^/etc/(passwd|group|shadow|gshadow|\.pwd)"
_FILES = f"find /etc /usr /var /opt /srv /root /home -xdev | grep -Ev '{_OTHERS}' | sort"
_JOURNAL = "{ journalctl -u phase-serve -o cat --no-pager -n 40; false; }"
_STATE = "sha256sum /var/lib/phase/repository/tree/metadata/1.root.json"


@pytest.fixture
def loop(lab: Lab, record: Record, release: Release, arch: str, tmp_path: Path) -> Loop:
    return Loop(lab, record, release, arch, tmp_path)


@pytest.fixture
def media(release: Release, arch: str, tmp_path: Path) -> Path:
    """What is carried to the machine: the package, a later one, and a release."""
    if why := debian_guest.refusal():
        pytest.skip(why)
    directory = tmp_path / "media"
    directory.mkdir()
    built = debian_guest.package(arch)
    shutil.copy(built, directory / "phase.deb")
    shutil.copy(debian_guest.newer(built, "99.0", tmp_path), directory / "newer.deb")
    export(release.repository, directory / "repository", only=[(CHANNEL, arch)])
    return directory


@pytest.mark.lab(seconds=240)
def test_a_machine_boots_from_the_package(loop: Loop, media: Path) -> None:
    """Installed, started, upgraded, asked by a machine that only the DHT tells of it, and purged."""
    server = debian_guest.machine(loop.lab, "debian", loop.arch, loop.lan, media, loop.work)
    server.wait_mark("system", timeout=120)
    shell = server.shell()
    # In the machine's memory: the list is long, and a console is slow.
    shell.succeed(f"{_FILES} >/run/before", timeout=120)
    shell.succeed("dpkg -i /media/phase.deb", timeout=240)
    enabled = shell.run("systemctl is-enabled phase-serve.service phase-serve.socket phase-refresh.timer")
    assert enabled.output.split() == ["disabled"] * 3
    first = _signs_what_nobody_signed(shell, loop.arch)
    shell.succeed("dpkg -i /media/newer.deb", timeout=240)
    _serves(shell)
    assert _process(shell) != first
    assert shell.succeed("phase version", timeout=60)
    _serves_a_release(shell)
    address = loop.address(server)
    client = loop.boot_vm(f"phase.mdns=off phase.dht={address}:{PORT}")
    loop.reaches_job(client)
    found = mark(client, "discover").facts
    assert (found["source"], found["provider"]) == ("dht", f"http://{address}:{PORT}")
    loop.report("Debian package, DHT", client)
    client.stop()
    _goes(shell)


def _signs_what_nobody_signed(shell: Shell, arch: str) -> str:
    """A file that nobody signed is served by a process without privileges; which process."""
    place = f"/var/lib/phase/artifacts/{CHANNEL}/{arch}"
    shell.succeed(f"mkdir -p {place}; echo kernel >{place}/kernel")
    shell.succeed(f"systemctl start phase-serve || {_JOURNAL}", timeout=120)
    _serves(shell)
    status = shell.succeed(f"cat /proc/{_process(shell)}/status")
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE)
    uid = shell.succeed("id -u phase").strip()
    assert re.search(rf"^Uid:\s+{uid}\s+{uid}\s+{uid}\s+{uid}$", status, re.MULTILINE)
    shell.succeed(f"{_STATE} >/root/state")
    return _process(shell)


def _serves(shell: Shell) -> None:
    health = f'busybox wget -q -O - http://127.0.0.1:{PORT}/health | grep \'"status":"ok"\''
    shell.wait_until_succeeds(health, timeout=90)


def _process(shell: Shell) -> str:
    return shell.succeed("systemctl show --property MainPID --value phase-serve").strip()


def _serves_a_release(shell: Shell) -> None:
    """Another directory in the place of the artifacts; the state is the one from before the upgrade."""
    shell.succeed(f"{_STATE} | cmp - /root/state; rm /root/state")
    mount = "mount --bind /media/repository /var/lib/phase/artifacts"
    shell.succeed(f"{mount}; systemctl restart phase-serve || {_JOURNAL}", timeout=120)
    _serves(shell)
    kept = f"busybox wget -q -O - http://127.0.0.1:{PORT}/status | grep '\"held\":1[,}}]'"
    shell.wait_until_succeeds(kept, timeout=120)


def _goes(shell: Shell) -> None:
    """Removing stops it and keeps its state; purging leaves nothing."""
    shell.succeed("umount -l /var/lib/phase/artifacts; dpkg -r phase", timeout=120)
    shell.fail(f"busybox wget -q -O - http://127.0.0.1:{PORT}/health")
    shell.succeed(_STATE)
    shell.succeed("dpkg -P phase", timeout=120)
    shell.succeed(f"{_FILES} | diff /run/before -", timeout=120)
