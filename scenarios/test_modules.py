"""Programs that real compilers made, run by the booted system: the same output on every architecture."""

import io
import json
import shlex
import sys
import tarfile
from pathlib import Path

import pytest
from wasmtime import wat2wasm

from fixtures.modules import corpus
from lab.net.hostport import refusal
from lab.plugin import Record
from lab.shell import Shell
from lab.topology import Lab
from phase.jobs.runner import Job, execute
from scenarios.images import Release
from scenarios.loop import Loop

#: Prints random bytes, the time, and the bits of a NaN.
_CHANCE = bytes(wat2wasm((Path(corpus.__file__).parents[1] / "chance.wat").read_text()))
_SEED = 7
#: Of the host's web server, as the system sees it.
_PORT = 8000
#: Runs each job and prints its exit code, the digest of its output and the fuel that it burnt. One process
#: for all of them: where a processor is emulated, the command line's parser would take most of the time. For
#: the same reason each may take its time. Modules are deterministic, so that the fuel is the same, too;
#: components cannot be.
_DRIVER = """
import hashlib, json, sys
from phase.cli._outcome import exit_code
from phase.jobs.limits import Limits
from phase.jobs.runner import Job, execute
limits = Limits(wall_seconds=300.0)
for name, module, args, env, text, seed in json.load(open("runs.json")):
    given = open("text.txt", "rb").read() if text else b""
    module = open(module + ".wasm", "rb").read()
    done = execute(Job(module, args=args, stdin=given, env=env, limits=limits, seed=seed))
    digest = hashlib.sha256(done.stdout).hexdigest()
    print(json.dumps([name, exit_code(done.status), digest, done.fuel_used]), flush=True)
print("end", flush=True)
"""


@pytest.fixture
def loop(lab: Lab, record: Record, release: Release, arch: str, tmp_path: Path) -> Loop:
    return Loop(lab, record, release, arch, tmp_path)


@pytest.mark.lab(seconds=240)
def test_modules_of_real_compilers_run_alike(loop: Loop, tmp_path: Path) -> None:
    """The digests are those of the manifest, so they are the same on both architectures; so is the fuel."""
    if why := refusal():
        pytest.skip(why)
    runs = corpus.runs()
    with tarfile.open(tmp_path / "modules.tar", "w") as tar:
        for name in corpus.modules():
            tar.add(corpus.built(name), f"{name}.wasm")
        tar.add(corpus.TEXT, "text.txt")
        chance = tarfile.TarInfo("chance.wasm")
        chance.size = len(_CHANCE)
        tar.addfile(chance, io.BytesIO(_CHANCE))
    listed = [(run.name, run.module, run.args, run.env, run.stdin, _seed(run)) for run in runs]
    listed.append(("chance", "chance", [], {}, "", _SEED))
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
    told = {name: (code, digest) for name, code, digest, _ in map(json.loads, _lines(shell))}
    known = {"chance", *(run.name for run in runs if _seed(run))}
    fuel = {name: burnt for name, _, _, burnt in map(json.loads, _lines(shell)) if name in known}
    here = execute(Job(_CHANCE, seed=_SEED))
    assert told.pop("chance") == (0, corpus.digest(here.stdout))
    assert list(told) == [run.name for run in runs]
    assert fuel == {run.name: _fuel(run) for run in runs if _seed(run)} | {"chance": here.fuel_used}
    # Standard error is compared where `phase run` itself is tested.
    wrong = [found for run in runs for found in run.check(*told[run.name], run.stderr)]
    assert wrong == []


def _fuel(run: corpus.Run) -> int | None:
    """What a job burns on the machine of the test."""
    module = corpus.built(run.module).read_bytes()
    return execute(Job(module, args=run.args, stdin=run.input, env=run.env, seed=_SEED)).fuel_used


def _seed(run: corpus.Run) -> int | None:
    """Makes its job deterministic; a component's cannot be."""
    return None if corpus.modules()[run.module][0] == "jco" else _SEED


def _lines(shell: Shell) -> list[str]:
    return shell.succeed("cat /tmp/modules/told").splitlines()[:-1]
