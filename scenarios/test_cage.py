"""A job that has broken out of the engine, in the booted system: one beside another that ends well."""

import json
import shlex
from pathlib import Path

import pytest
from wasmtime import wat2wasm

from fixtures import escape
from lab.errors import MachineDied
from lab.plugin import Record
from lab.qemu.vm import VM
from lab.topology import Lab
from phase.jobs.protect import OWN
from scenarios.images import Release
from scenarios.loop import PORT, Loop

_IDENTITY = "/var/lib/phase/identity.json"
#: A worker takes seconds where a processor is emulated: of each kind one or two.
_NAMES = (
    "TCP connection", "TCP listener", "io_uring", "the user's file", "writing a file", "seeing a process",
    "killing a process", "killing the parent", "killing all", "fork", "another program", "mount",
    "shared memory", "private memory", "being looked at",
)  # fmt: skip
#: One process for all: what it imports takes longer than a job. Input comes when all others have ended.
_DRIVER = """
import json, sys
from escape import ATTEMPTS, Targets, attempt, ending
from phase.jobs.runner import Job, Worker
with Worker("whole") as beside:
    print(json.dumps(["layers", " ".join(beside.wait_ready()[0])]), flush=True)
    for name in sys.argv[3:]:
        ended = ending(attempt(ATTEMPTS[name], Targets(beside.pid, sys.argv[1], int(sys.argv[2]))))
        print(json.dumps([name, ended]), flush=True)
    done = beside.run(Job(open("/usr/share/phase/hello.wasm", "rb").read(), stdin=b"Hello"))
    print(json.dumps(["beside", done.stdout.decode()]), flush=True)
"""
_HOG = """
import sys
from phase.jobs.limits import Limits
from phase.jobs.runner import Job, Worker
with Worker() as worker:
    limits = Limits(memory_bytes=4 << 30, wall_seconds=300.0)
    print(worker.run(Job(open("hog.wasm", "rb").read(), limits=limits)).status)
"""
#: Where calls are not filtered: a child that would stay, and memory that no limit of a process counts.
_GROUPED = '''
import contextlib, os
from escape import Targets, broken_out
from phase.jobs.limits import Limits
from phase.jobs.protect import OWN
from phase.jobs.runner import Job, Worker
no_filter = "from phase.jobs import calls; calls.close = lambda libc, files: None"
takes = """
os.fork() or time.sleep(600)
shared = mmap.mmap(-1, 300 << 20)
for n in range(300):
    shared.write(bytes(1 << 20))
"""
small = Limits(memory_bytes=1 << 20, compile_bytes=1 << 20, wall_seconds=100)
with broken_out(takes, Targets(1), no_filter), Worker() as worker:
    done = worker.run(Job(b'(module (memory 1) (func (export "_start")))', limits=small))
    print(done.status, done.stdout)
print(os.listdir(os.environ["PHASE_CGROUP"]).count("worker-%d" % worker.pid))
texts = []
for each in filter(str.isdigit, os.listdir("/proc")):
    with contextlib.suppress(OSError):  # it may end meanwhile
        texts.append(open(f"/proc/{each}/status").read())
print(sum(int(text.partition("Uid:")[2].split()[0]) >= OWN for text in texts))
'''
#: A job that copies its input file, and one that copies a file of a directory that it is granted.
_FILES = """
import os
from phase.jobs.job import Directory
from phase.jobs.limits import Limits
from phase.jobs.runner import Job, execute
module, limits = open("copy.wasm", "rb").read(), Limits(scratch_bytes=1 << 20, wall_seconds=100)
done = execute(Job(module, inputs={"a": b"abc"}, limits=limits))
print(done.status, done.stdout, " ".join(done.cage))
os.mkdir("shared")
open("shared/a", "w").write("shared")
done = execute(Job(module, directories=[Directory("shared", "/data")], limits=Limits(wall_seconds=100)))
print(done.status, done.stdout, " ".join(done.cage), open("shared/b").read())
"""
_WHOSE = (
    "for p in /proc/[0-9]*; do grep -q artifacts $p/cmdline && grep Uid: $p/status; done 2>/dev/null; true"
)
_GROUP = "PHASE_CGROUP=/sys/fs/cgroup/jobs"


@pytest.fixture
def loop(lab: Lab, record: Record, release: Release, arch: str, tmp_path: Path) -> Loop:
    return Loop(lab, record, release, arch, tmp_path)


def _run(server: VM, driver: str, *words: str) -> list[str]:
    """Run a program in the system to its end; its lines."""
    shell = server.shell()
    shell.put("/tmp/cage/driver.py", driver.encode())
    line = shlex.join(["python3", "driver.py", *words])
    return shell.succeed(f"cd /tmp/cage && {_GROUP} {line} 2>&1", timeout=400).splitlines()


@pytest.mark.lab(seconds=240)
def test_a_job_that_broke_out_beside_another(loop: Loop) -> None:
    """It reaches nothing: not the provider, not the node's identity, not the other job, which ends well."""
    server = loop.serve("phase.job=hello")
    server.wait_mark("job", timeout=120)
    server.shell().succeed("mkdir /tmp/cage")
    server.shell().put("/tmp/cage/escape.py", Path(escape.__file__).read_bytes())
    told = dict(map(json.loads, _run(server, _DRIVER, _IDENTITY, str(PORT), *_NAMES)))
    assert told.pop("layers") == "namespaces user landlock filter cgroup"
    assert told.pop("beside") == "olleH"
    assert list(told) == list(_NAMES)
    assert {name: end for name, end in told.items() if not end.startswith(("refused: ", "killed by"))} == {}
    server.shell().succeed(f"wget -q -O /dev/null http://127.0.0.1:{PORT}/health")
    loop.report("a job that broke out", server)


@pytest.mark.lab(seconds=120)
def test_out_of_memory_ends_the_job_and_not_the_provider(loop: Loop) -> None:
    """The kernel says whom it chose: a user that only workers are. To the lab the machine ends there."""
    server = loop.serve(staged=True)
    shell = server.shell()
    shell.succeed("mkdir /tmp/cage")
    shell.put("/tmp/cage/hog.wasm", bytes(wat2wasm((Path(escape.__file__).parent / "hog.wat").read_text())))

    def runs() -> None:
        _run(server, _HOG)
        server.console.wait_line("never", timeout=30)  # the kernel's line may come after the job's end

    with pytest.raises(MachineDied, match=rf"UID:{str(OWN)[:3]}\d+ .*oom_score_adj:1000"):
        runs()


@pytest.mark.lab(seconds=120)
def test_a_job_is_in_a_group_that_bounds_it_and_ends_with_it(loop: Loop) -> None:
    server = loop.serve(staged=True)
    shell = server.shell()
    shell.succeed("mkdir /tmp/cage")
    shell.put("/tmp/cage/escape.py", Path(escape.__file__).read_bytes())
    assert _run(server, _GROUPED) == ["LimitHit(limit='memory') b''", "0", "0"]


@pytest.mark.lab(seconds=120)
def test_a_booted_node_serves_as_a_user_of_its_own(loop: Loop) -> None:
    """Who breaks into the provider is not root, and cannot sign receipts."""
    server = loop.serve("phase.job=hello")
    server.wait_mark("job", timeout=120)
    shell = server.shell()
    assert shell.succeed(_WHOSE).split() == ["Uid:", "100", "100", "100", "100"]
    as_provider = "start-stop-daemon -S -c phase -p /run/phase/none -x /bin/cat --"
    assert shell.succeed(f"{as_provider} /etc/hosts")
    shell.fail(f"{as_provider} {_IDENTITY}")
    shell.fail(f"{as_provider} /dev/kmsg </dev/null")
    loop.report("a provider of its own user", server)


@pytest.mark.lab(seconds=120)
def test_a_job_uses_the_files_that_it_is_granted(loop: Loop) -> None:
    """By this architecture's numbers of the calls for files."""
    server = loop.serve(staged=True)
    shell = server.shell()
    shell.succeed("mkdir /tmp/cage")
    module = wat2wasm((Path(escape.__file__).parent / "copy.wat").read_text())
    shell.put("/tmp/cage/copy.wasm", bytes(module))
    assert _run(server, _FILES) == [
        "Exited(code=0) b'abc' namespaces mounts user landlock filter cgroup",
        "Exited(code=0) b'shared' namespaces mounts landlock filter cgroup shared",
    ]
