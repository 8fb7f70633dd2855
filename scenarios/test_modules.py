"""Programs that real compilers made, run by the booted system: the same output on every architecture."""

import sys
import tarfile
from pathlib import Path

import pytest

from fixtures.modules import corpus
from lab.net.hostport import refusal
from lab.plugin import Record
from lab.topology import Lab
from scenarios.images import Release
from scenarios.loop import Loop

#: Of the host's web server, as the system sees it.
_PORT = 8000


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
        tar.add(corpus.TEXT, corpus.TEXT.name)
    # One line a run: its name, its exit code, the digest of what it printed.
    lines = [f"{run.script()} >>told" for run in runs]
    phase = 'phase() { python3 -m phase "$@"; }'
    (tmp_path / "all.sh").write_text("\n".join([phase, *lines, "echo end >>told", ""]))
    server = loop.serve()
    laptop = loop.lab.host_port("laptop", loop.lan)
    address = str(laptop.address.ip)
    with laptop.running(sys.executable, "-m", "http.server", str(_PORT), "--directory", str(tmp_path)):
        shell = server.shell()
        shell.succeed("mkdir /tmp/modules")
        for name in ("modules.tar", "all.sh"):
            there = f"http://{address}:{_PORT}/{name}"
            shell.wait_until_succeeds(f"wget -q -O /tmp/modules/{name} {there}", timeout=60)
    shell.succeed("cd /tmp/modules && tar xf modules.tar && (sh all.sh >/dev/null 2>&1 &)")
    shell.wait_until_succeeds("tail -n 1 /tmp/modules/told | grep -qx end", timeout=600)
    told = [line.rsplit(" ", 3) for line in shell.succeed("cat /tmp/modules/told").splitlines()[:-1]]
    assert [name for name, *_ in told] == [run.name for run in runs]
    wrong = []
    for run, (_, code, digest, _) in zip(runs, told, strict=True):
        # Standard error is compared where `phase run` itself is tested.
        wrong += run.check(int(code), digest, run.stderr)
    assert wrong == []
    loop.report("modules of real compilers", server)
