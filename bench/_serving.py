"""Servers for measurements: one process each, on a free port of loopback, and what they cost."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from hashlib import file_digest
from pathlib import Path
from typing import NamedTuple

from phase.release.keys import ReleaseKeys
from phase.release.repository import Repository

_NGINX = """
daemon off; master_process off; worker_processes 1; error_log stderr crit; pid {state}/nginx.pid;
events {{ worker_connections 8192; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
  client_body_temp_path {state}; proxy_temp_path {state}; fastcgi_temp_path {state};
  uwsgi_temp_path {state}; scgi_temp_path {state};
  server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


def memory() -> str | None:
    """A directory in memory, where there is one: disks are not what is measured."""
    place = "/dev/shm"  # noqa: S108  only a temporary directory inside it
    return place if os.path.isdir(place) else None


def publish(root: Path, megabytes: int) -> tuple[Path, str, int]:
    """Publish a release whose rootfs is large.

    Args:
        root: a directory to write into.
        megabytes: of the rootfs.

    Returns:
        The repository, the path of the rootfs at a provider, its length in bytes.
    """
    repository = publish_release(root, {"kernel": 1, "rootfs": megabytes})
    with (root / "rootfs").open("rb") as rootfs:
        return repository, f"/blobs/sha256/{file_digest(rootfs, 'sha256').hexdigest()}", megabytes << 20


def publish_release(root: Path, artifacts: dict[str, int]) -> Path:
    """Publish a release.

    Args:
        root: a directory to write into.
        artifacts: MiB of each.

    Returns:
        The repository.
    """
    files = {}
    for name, megabytes in artifacts.items():
        files[name] = root / name
        files[name].write_bytes(os.urandom(1 << 20) * megabytes)
    repository = Repository.create(root / "repository", keys=ReleaseKeys.from_seed("bench"))
    repository.add("stable", "x86_64", files, release="1")
    repository.publish()
    return root / "repository"


class Server(NamedTuple):
    """A running server."""

    url: str
    pid: int

    def cpu(self) -> float:
        """Seconds of processor time so far, of the threads that there are: to the nanosecond."""
        threads = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9

    def peak(self) -> float:
        """The most memory it has had, MB."""
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text())
        return int(found.group(1)) / 1000 if found else 0.0


class Run(NamedTuple):
    """One round of reading: seconds, and the server's seconds of processor time."""

    wall: float
    cpu: float


def read(server: Server, path: str, connections: int, count: int) -> Run:
    """Read a path so many times over so many connections, each curl keeping one."""
    share = count // connections
    wanted = f'url = "{server.url}{path}"\noutput = "/dev/null"\n' * share
    before, begun = server.cpu(), time.perf_counter()
    readers = []
    for _ in range(connections):
        reader = subprocess.Popen(["curl", "-sS", "--fail", "-K", "-"], stdin=subprocess.PIPE, text=True)
        assert reader.stdin is not None
        reader.stdin.write(wanted)
        reader.stdin.close()
        readers.append(reader)
    assert all(reader.wait() == 0 for reader in readers)
    return Run(time.perf_counter() - begun, server.cpu() - before)


@contextlib.contextmanager
def nginx(root: Path, state: Path) -> Iterator[Server]:
    """Serve a directory with nginx.

    Args:
        root: the directory.
        state: where it may write.
    """
    if shutil.which("nginx") is None:
        raise SystemExit("nginx is not installed; on Debian: apt-get install nginx-light")
    port = _free()
    state.mkdir(parents=True, exist_ok=True)
    (state / "nginx.conf").write_text(_NGINX.format(state=state, root=root, port=port))
    with _run(["nginx", "-e", "stderr", "-p", str(state), "-c", str(state / "nginx.conf")], port) as server:
        yield server


#: Passes connections on to a port, at so many bytes a second of all of them together. nginx's own limit
#: lets a second's worth of every request through at once.
_RELAY = """
import asyncio, sys, time
port, upstream, rate = map(int, sys.argv[1:])
free = time.monotonic()
async def slowly(reader, writer):
    global free
    while data := await reader.read(65536):
        free = max(free, time.monotonic() - 0.01) + len(data) / rate
        await asyncio.sleep(free - time.monotonic())
        writer.write(data)
        await writer.drain()
    writer.close()
async def copy(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()
async def serve(reader, writer):
    there, to = await asyncio.open_connection("127.0.0.1", upstream)
    await asyncio.gather(copy(reader, to), slowly(there, writer), return_exceptions=True)
async def main():
    async with await asyncio.start_server(serve, "127.0.0.1", port) as server:
        await server.serve_forever()
asyncio.run(main())
"""


@contextlib.contextmanager
def limited(server: Server, rate: int) -> Iterator[Server]:
    """The same as a server has, at so many bytes a second."""
    port = _free()
    upstream = server.url.rpartition(":")[2]
    with _run([sys.executable, "-c", _RELAY, str(port), upstream, str(rate)], port) as relay:
        yield relay


@contextlib.contextmanager
def phase(repository: Path, *more: str) -> Iterator[Server]:
    """Serve a repository with `phase serve`."""
    port = _free()
    command = [sys.executable, "-m", "phase", "serve", "--artifacts", str(repository), "--no-mdns"]
    with _run([*command, "--bind", "127.0.0.1", "--port", str(port), *more], port) as server:
        yield server


def settle(server: Server) -> None:
    """Wait until `phase serve` has read its blobs: what it does once a day is not what is measured."""
    while True:
        with urllib.request.urlopen(f"{server.url}/metrics", timeout=30) as answer:  # noqa: S310
            found = dict(re.findall(r'phase_provider_blobs\{state="(\w+)"\} (\d+)', answer.read().decode()))
        if found.get("verified") == found.get("named", "none"):
            return
        time.sleep(0.5)


@contextlib.contextmanager
def _run(command: list[str], port: int) -> Iterator[Server]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield Server(f"http://127.0.0.1:{port}", process.pid)
    finally:
        process.terminate()
        process.wait(40)


def _free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port
