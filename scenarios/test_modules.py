"""Programs that real compilers made, run by the booted system: the same output on every architecture."""

import json
import shlex
import sys
import tarfile
from pathlib import Path

import pytest

from fixtures.modules import corpus
from lab.net.hostport import refusal
from lab.plugin import Record
from lab.shell import Shell
from lab.topology import Lab
from scenarios.images import Release
from scenarios.loop import Loop

#: Of the host's web server, as the system sees it.
_PORT = 8000
#: Runs each job and prints its exit code and the digest of its output. One process for all of them: where a
#: processor is emulated, the command line's parser would take most of the time. For the same reason each may
#: take its time.
_DRIVER = """
import hashlib, json, sys
from phase.cli._outcome import exit_code
from phase.jobs.limits import Limits
from phase.jobs.runner import Job, execute
limits = Limits(wall_seconds=300.0)
for name, module, args, env, text in json.load(open("runs.json")):
    given = open("text.txt", "rb").read() if text else b""
    done = execute(Job(open(module + ".wasm", "rb").read(), args=args, stdin=given, env=env, limits=limits))
    print(json.dumps([name, exit_code(done.status), hashlib.sha256(done.stdout).hexdigest()]), flush=True)
print("end", flush=True)
"""


@pytest.fixture
def loop(lab: Lab, record: Record, release: Release, arch: str, tmp_path: Path) -> Loop:
    return Loop(lab, record, release, arch, tmp_path)


@pytest.mark.lab(seconds=240)
def test_modules_of_real_compilers_run_alike(loop: Loop, tmp_path: Path) -> None:
    """The digests are those of the manifest, so they are the same on both architectures."""
    if why := refusal():
        pytest.skip(why)
    runs = corpus.runs()
    with tarfile.open(tmp_path / "modules.tar", "w") as tar:
        for name in corpus.modules():
            tar.add(corpus.built(name), f"{name}.wasm")
        tar.add(corpus.TEXT, "text.txt")
    listed = [(run.name, run.module, run.args, run.env, run.stdin) for run in runs]
    (tmp_path / "runs.json").write_text(json.dumps(listed))
    (tmp_path / "driver.py").write_text(_DRIVER)
    server = loop.serve(staged=True)
    laptop = loop.lab.host_port("laptop", loop.lan)
    address = str(laptop.address.ip)
    with laptop.running(sys.executable, "-m", "http.server", str(_PORT), "--directory", str(tmp_path)):
        shell = server.shell()
        shell.succeed("mkdir /tmp/modules")
        for name in ("modules.tar", "runs.json", "driver.py"):
            there = f"http://{address}:{_PORT}/{name}"
            shell.wait_until_succeeds(f"wget -q -O /tmp/modules/{name} {there}", timeout=60)
    shell.succeed("cd /tmp/modules && tar xf modules.tar && (python3 driver.py >told 2>&1 &)")
    # Asked for seldom: the shell's own work takes processor time from the jobs.
    done = (
        "for n in 1 2 3 4 5; do tail -n 1 /tmp/modules/told | grep -qx end && exit 0; sleep 2; done; exit 1"
    )
    shell.wait_until_succeeds(f"sh -c {shlex.quote(done)}", timeout=600)
    told = {name: (code, digest) for name, code, digest in map(json.loads, _lines(shell))}
    assert list(told) == [run.name for run in runs]
    # Standard error is compared where `phase run` itself is tested.
    wrong = [found for run in runs for found in run.check(*told[run.name], run.stderr)]
    assert wrong == []


def _lines(shell: Shell) -> list[str]:
    return shell.succeed("cat /tmp/modules/told").splitlines()[:-1]
