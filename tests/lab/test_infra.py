"""testinfra's modules over the lab's shell, on a terminal of this host: what a guest of busybox lacks."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

from lab import infra
from lab.shell import Shell
from tests.lab.terminal import Terminal


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    terminal = Terminal(tmp_path / "log")
    yield infra.host(Shell(terminal.console, timeout=20))
    terminal.close()


@pytest.mark.skipif(not shutil.which("dpkg-query"), reason="this host has no dpkg-query")
def test_packages_where_there_is_a_package_tool(host: Host) -> None:
    asked = ["dpkg-query", "-W", "-f", "${Version}", "dpkg"]
    version = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert host.package("dpkg").is_installed
    assert host.package("dpkg").version == version
    assert not host.package("no-such-package").is_installed


@pytest.mark.skipif(not shutil.which("systemctl"), reason="this host has no systemctl")
def test_services_where_there_is_a_service_manager(host: Host) -> None:
    assert host.service("dev-hugepages.mount").exists
    assert not host.service("no-such-unit.service").exists
    assert host.service("getty@.service").is_enabled
    assert not host.service("no-such-unit.service").is_running
