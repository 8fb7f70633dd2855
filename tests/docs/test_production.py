"""The nginx configurations of production.md, with a real nginx and `phase fetch`."""

import contextlib
import dataclasses
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures import artifacts
from tests import pages
from tests.phase.provider.service import serving

PAGE = "docs/use/production.md"
SECRETS = {"PHASE_RELEASE_COST": "interactive", "PHASE_RELEASE_PASSPHRASE": "a passphrase for the docs"}


def configuration(heading: str) -> str:
    """The block under a heading of the page."""
    section = (pages.PROJECT / PAGE).read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```nginx\n(.*?)```", section, re.DOTALL)
    return str(block)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def nginx(server: str, directory: Path) -> Iterator[str]:
    """An nginx with the configuration of the page, on a port of its own; its URL."""
    if shutil.which("nginx", path="/usr/sbin:/usr/bin") is None:
        pytest.skip("no nginx here; on Debian: apt-get install nginx-light")
    port = free_port()
    listening = re.sub(r"listen \d+", f"listen 127.0.0.1:{port}", server)
    temporary = "".join(
        f"{name}_temp_path {directory}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (directory / "nginx.conf").write_text(
        f"daemon off; master_process off; error_log stderr; pid {directory}/pid;\n"
        f"events {{}}\nhttp {{ access_log off; {temporary} {listening} }}\n"
    )
    process = subprocess.Popen(["/usr/sbin/nginx", "-c", directory / "nginx.conf", "-e", "stderr"])
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def fetch(url: str, directory: Path) -> None:
    words = ["fetch", "--root", "repo/metadata/1.root.json", "--arch", "x86_64", "--output", "mirror"]
    done = subprocess.run(
        [sys.executable, "-m", "phase", *words, "--provider", url],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A repository with one release."""
    (tmp_path / "vmlinuz").write_bytes(artifacts.kernel(size=3_000_000))
    for words in (
        "init repo --new-keys keys",
        "add repo stable x86_64 --kernel vmlinuz --release 1 --keys keys",
    ):
        subprocess.run(
            [sys.executable, "-m", "phase", "release", *words.split()],
            cwd=tmp_path,
            env=pages.environment(tmp_path, SECRETS),
            check=True,
            capture_output=True,
        )
    return tmp_path


def test_a_release_gets_from_the_publisher_to_the_provider(desk: Path) -> None:
    """The provider is another directory here, and what `ssh` runs there runs here."""
    variables = pages.environment(desk)
    (desk / "bin/ssh").write_text('#!/bin/sh\nshift\nexec "$@"\n')
    (desk / "bin/ssh").chmod(0o755)
    if shutil.which("rsync") is None:
        pytest.skip("no rsync here; on Debian: apt-get install rsync")
    (desk / "srv").mkdir()
    blocks = [
        dataclasses.replace(
            block,
            lines=tuple(
                line.replace("provider.example.org:", "").replace("/srv/phase", str(desk / "srv"))
                for line in block.lines
            ),
        )
        for block in pages.chosen(PAGE, "test_a_release_gets_from_the_publisher_to_the_provider")
    ]
    for _ in range(2):  # the second time over what is there
        pages.run(blocks, desk, variables)
    with serving(desk / "srv/served", "--bind", "127.0.0.1", "--port", "0", "--no-mdns", "--no-dht") as (
        url,
        _,
    ):
        fetch(url, desk)


def test_nginx_serves_an_export(desk: Path) -> None:
    pages.run(pages.chosen(PAGE, "test_nginx_serves_an_export"), desk, pages.environment(desk))
    server = configuration("nginx instead of a provider").replace("/srv/phase/public", str(desk / "public"))
    with nginx(server, desk) as url:
        fetch(url, desk)
        head = subprocess.run(
            ["curl", "-sSI", f"{url}/metadata/timestamp.json"], capture_output=True, text=True, check=True
        )
    assert "Cache-Control: no-store" in head.stdout


def test_nginx_in_front_of_a_provider(desk: Path) -> None:
    with serving(desk / "repo", "--bind", "127.0.0.1", "--port", "0", "--no-mdns", "--no-dht") as (url, _):
        server = configuration("nginx in front of a provider").replace("127.0.0.1:8080", url.split("//")[1])
        with nginx(server, desk) as front:
            fetch(front, desk)
