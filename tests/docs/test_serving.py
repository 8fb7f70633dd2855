"""The service that serving.md sets up without the Debian package finds what the page has put in place."""

import configparser
import dataclasses
import os
import shlex
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from fixtures import artifacts
from tests import pages

PAGE = "docs/use/serving.md"


def _elsewhere(line: str, root: Path) -> str:
    """A command of the page, with another directory in the place of this host's root."""
    if line.startswith(("$ systemd-sysusers ", "$ systemd-tmpfiles ")):
        words = [word for word in line.split() if not word.startswith("/")]
        return " ".join([*words, f"--root={root}"])
    return line.replace(" /etc/", f" {root}/etc/")


def _set_up(root: Path) -> None:
    # Every Debian has this one, and not the others.
    (root / "etc/systemd/system").mkdir(parents=True)
    blocks = [
        dataclasses.replace(block, lines=tuple(_elsewhere(line, root) for line in block.lines))
        for block in pages.chosen(PAGE, "test_the_service_starts_as_the_page_sets_it_up")
    ]
    pages.run(blocks, pages.PROJECT, os.environ)


def _service(root: Path) -> tuple[list[str], dict[str, str]]:
    """What the unit starts, and its environment, with paths below the other root."""
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    text = (root / "etc/systemd/system/phase-serve.service").read_text()
    unit.read_string(text)
    variables = dict(
        line.removeprefix("Environment=").split("=", 1)
        for line in text.splitlines()
        if line.startswith("Environment=")
    )
    return shlex.split(unit["Service"]["ExecStart"]), {
        name: f"{root}{value}" for name, value in variables.items()
    }


def test_the_service_starts_as_the_page_sets_it_up(tmp_path: Path) -> None:
    """Its command is the one of install.md; with its configuration alone it serves what lies there."""
    if os.geteuid() or shutil.which("systemd-socket-activate") is None:
        pytest.skip("it takes root and systemd to give directories to an account, and sockets to a program")
    _set_up(tmp_path)
    (program, *words), variables = _service(tmp_path)
    assert f" {program}\n" in (pages.PROJECT / "docs/use/install.md").read_text()
    for directory in ("var/lib/phase", "var/lib/phase/artifacts"):
        assert (tmp_path / directory).is_dir()
    configuration = tmp_path / "etc/phase/phase.toml"
    configuration.write_text(configuration.read_text().replace('"/var/', f'"{tmp_path}/var/'))
    kernel = tmp_path / "var/lib/phase/artifacts/stable/x86_64/kernel"
    kernel.parent.mkdir(parents=True)
    kernel.write_bytes(artifacts.kernel())
    variables |= {"PHASE_CONFIG": str(configuration), "PYTHONPATH": str(pages.PROJECT)}
    with socket.create_server(("127.0.0.1", 0)) as free:
        listening = f"127.0.0.1:{free.getsockname()[1]}"
    passed = [word for name, value in variables.items() for word in ("-E", f"{name}={value}")]
    argv = ["systemd-socket-activate", "-l", listening, *passed, sys.executable, "-m", "phase", *words]
    with subprocess.Popen(
        [*argv, "--arch", "x86_64", "--no-mdns", "--no-dht"], stderr=subprocess.PIPE
    ) as service:
        try:
            assert service.stderr is not None
            assert b"Listening on" in service.stderr.readline()
            with urllib.request.urlopen(f"http://{listening}/stable/x86_64/kernel", timeout=60) as answer:
                assert answer.read() == artifacts.kernel()
        finally:
            service.terminate()
