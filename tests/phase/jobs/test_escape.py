"""What a job that has broken out of the engine can do: nothing, as root's and as another user's."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures.escape import ATTEMPTS, Targets, attempt, broken_out
from phase.jobs.limits import Limits
from phase.jobs.runner import Job, Worker
from phase.jobs.status import Exited, Killed, explain

Wasm = Callable[[str], bytes]
PROJECT = Path(__file__).parents[3]
_OTHER = 12_345
#: Words before a command that make another user run it. Python may be where only root can read.
_USERS = {
    "caller": [],
    "another user": [
        *("setpriv", f"--reuid={_OTHER}", f"--regid={_OTHER}", "--clear-groups"),
        *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
    ],
}
#: For a worker, before its cage is closed: it has no cage, or one layer is refused.
_NO_CAGE = "from phase.jobs import protect; protect.give_up = lambda *_, **__: ([], [])"
_LAYERS = {
    "filter": "from phase.jobs import calls; calls.close = lambda libc, files: None",
    "landlock": "from phase.jobs import landlock; landlock.close = lambda libc, but: 0",
    "namespaces": "from phase.jobs import protect; protect._leave_network = lambda *_, **__: False",
    "user": "from phase.jobs import protect; protect._leave_root = lambda libc: []",
}
_STOPPED = f"killed by signal {signal.SIGSYS:d}"
#: Without a cage these do what they say, and harm nobody here.
_REAL = (
    "TCP connection", "TCP listener", "UDP datagram", "abstract socket", "netlink", "pair of sockets",
    "the user's file", "a file in memory", "is there a file", "seeing a process", "whether a process lives",
    "handle of a process", "priority of a process", "owner of a pipe", "vfork", "session",
    "a trace of its end", "being looked at", "user", "shared memory", "personality", "killing a process",
)  # fmt: skip
_FILES = ("the user's file", "writing a file", "removing a file", "seeing a process", "another program")
_SIGNALS = ("whether a process lives", "killing a process", "signal to a thread")
#: What each layer behind the filter refuses by itself: of Landlock by the kernel's version of it.
_BY_ITSELF = {
    "landlock": (*_FILES, "tracing"),
    "landlock 4": ("TCP connection",),
    "landlock 6": (*_SIGNALS, "abstract socket"),
    "namespaces": ("TCP connection", "UDP datagram", "abstract socket"),
    "user": (*_SIGNALS, "the user's file", "removing a file", "tracing"),
}


class _Victims:
    """What there is to reach, of one user."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.process = subprocess.Popen([*words, "sleep", "600"])
        self._directory = tempfile.TemporaryDirectory(prefix="escape-")
        self.secret = Path(self._directory.name, "identity")
        self.secret.write_text("key")
        self.secret.chmod(0o600)
        if words:
            for path in (self.secret, self.secret.parent):
                os.chown(path, _OTHER, _OTHER)
        self._port = socket.create_server(("127.0.0.1", 0))
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(f"\0phase-escape-{self.process.pid}")
        self._socket.listen()

    @property
    def targets(self) -> Targets:
        name = f"phase-escape-{self.process.pid}"
        return Targets(self.process.pid, str(self.secret), self._port.getsockname()[1], name)

    def attempt(self, names: tuple[str, ...], before: str = "", *, pooled: bool = False) -> dict[str, str]:
        """How these attempts end when a job of this user makes them."""
        given = json.dumps(self.targets._asdict() | {"before": before, "pooled": pooled})
        done = subprocess.run(
            [*self.words, sys.executable, "-m", "fixtures.escape", given, *names],
            cwd=PROJECT, env={"PYTHONPATH": str(PROJECT)}, capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return dict(map(json.loads, done.stdout.splitlines()))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._port.close()
        self._socket.close()
        self._directory.cleanup()

    @property
    def files(self) -> dict[str, str]:
        """What is in the directory of the secret, to be `{"identity": "key"}`."""
        return {path.name: path.read_text() for path in self.secret.parent.iterdir()}


@pytest.fixture(params=_USERS)
def victims(request: pytest.FixtureRequest) -> Iterator[_Victims]:
    words = _USERS[request.param]
    if words and os.geteuid() != 0:
        pytest.skip("only root can be another user")
    made = _Victims(words)
    yield made
    made.close()


@pytest.mark.parametrize("pooled", [False, True], ids=["worker", "pool"])
def test_a_job_that_broke_out_reaches_nothing(victims: _Victims, pooled: bool) -> None:
    ended = victims.attempt(tuple(ATTEMPTS), pooled=pooled)
    assert list(ended) == list(ATTEMPTS)
    assert {name: end for name, end in ended.items() if not end.startswith(("refused: ", _STOPPED))} == {}
    assert victims.process.poll() is None
    assert victims.files == {"identity": "key"}


def test_a_job_that_broke_out_of_a_worker_without_a_cage_reaches_all(victims: _Victims) -> None:
    """So each attempt is one."""
    ended = victims.attempt(_REAL, _NO_CAGE)
    assert {name: end for name, end in ended.items() if end != "done"} == {}
    assert victims.process.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize("layer", _BY_ITSELF)
def test_a_job_that_broke_out_where_calls_are_not_filtered(victims: _Victims, layer: str) -> None:
    """What is behind the filter holds by itself: each layer without the others."""
    name, _, version = layer.partition(" ")
    if name == "user" and victims.words:
        pytest.skip("only root's workers can be another user")
    if int(version or 0) > ctypes.CDLL(None).syscall(444, None, 0, 1):
        pytest.skip("this kernel's Landlock is older")
    refused = "; ".join(text for other, text in _LAYERS.items() if other != name)
    ended = victims.attempt(_BY_ITSELF[layer], refused)
    assert {name: end for name, end in ended.items() if not end.startswith("refused: ")} == {}
    assert victims.process.poll() is None
    assert victims.files == {"identity": "key"}


def test_a_job_that_broke_out_is_told_from_one_that_failed() -> None:
    done = attempt(ATTEMPTS["TCP listener"], Targets(1))
    assert isinstance(done.status, Killed)
    assert explain(done.status) == (
        "ended by signal 31: it made a system call that no job needs; "
        "the module may have broken out of the engine"
    )
    assert done.missing == ()


def test_a_job_that_broke_out_is_gone_with_its_children_and_others_go_on(wasm: Wasm) -> None:
    """It tries to end the worker beside it, and the parent of both, and to leave a child behind."""
    with Worker() as beside:
        beside.wait_ready()
        with broken_out("os.fork() or time.sleep(60)", Targets(beside.pid)), Worker() as other:
            seen: list[str] = []
            job = threading.Thread(target=lambda: seen.append(str(other.run(Job(wasm("hello"))).status)))
            job.start()
            for name in ("killing a process", "killing the parent", "killing all"):
                assert isinstance(attempt(ATTEMPTS[name], Targets(beside.pid)).status, Killed)
            job.join()
        assert seen[0].startswith("Killed(signal=31")
        done = beside.run(Job(wasm("hello"), stdin=b"Hello", limits=Limits(wall_seconds=20)))
    assert (done.status, done.stdout) == (Exited(0), b"olleH")


def test_out_of_memory_ends_the_job_first() -> None:
    with Worker() as worker:
        worker.wait_ready()
        assert Path(f"/proc/{worker.pid}/oom_score_adj").read_text() == "1000\n"


_STATUS = """
from phase.jobs.runner import Worker
with Worker() as worker:
    worker.wait_ready()
    print(open(f"/proc/{worker.pid}/status").read())
"""


def test_capabilities_of_another_user_are_dropped(victims: _Victims) -> None:
    done = subprocess.run(
        [*victims.words, sys.executable, "-c", _STATUS],
        env={"PYTHONPATH": str(PROJECT)}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    status = dict(line.split(":\t", 1) for line in done.stdout.splitlines() if ":\t" in line)
    for kind in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
        assert int(status[kind], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
