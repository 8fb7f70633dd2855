"""A job has the files that it is granted, and no others: by no name, no link, and not if it breaks out."""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import wasmtime

from fixtures.escape import MODULE, Targets, attempt, ending
from phase.identity import Identity
from phase.jobs import receipt as receipts
from phase.jobs.errors import JobRefusedError
from phase.jobs.flow import Descriptor, Streams
from phase.jobs.job import Directory
from phase.jobs.limits import MIB, Limits
from phase.jobs.pool import Pool
from phase.jobs.runner import Job, Worker, execute, grant_of
from phase.jobs.signed import run
from phase.jobs.status import Exited, LimitHit

Wasm = Callable[[str], bytes]
PROJECT = Path(__file__).parents[3]
_IMPORTS = "".join(
    f'(import "wasi_snapshot_preview1" "{name}" (func ${name} (param {kinds}) (result i32)))'
    for name, kinds in (
        ("path_open", "i32 i32 i32 i32 i32 i64 i64 i32 i32"),
        ("path_link", "i32 i32 i32 i32 i32 i32 i32"),
        ("path_symlink", "i32 i32 i32 i32 i32"),
        ("path_rename", "i32 i32 i32 i32 i32 i32"),
        ("path_unlink_file", "i32 i32 i32"),
        ("path_create_directory", "i32 i32 i32"),
        ("path_remove_directory", "i32 i32 i32"),
        ("path_readlink", "i32 i32 i32 i32 i32 i32"),
        ("path_filestat_get", "i32 i32 i32 i32 i32"),
        ("path_filestat_set_times", "i32 i32 i32 i32 i64 i64 i32"),
        ("fd_write", "i32 i32 i32 i32"),
    )
)
_EXIT = '(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))'


def _assemble(fields: str) -> bytes:
    return bytes(wasmtime.wat2wasm(f"(module {fields})"))


def _text(at: int, text: str) -> str:
    return f'(data (i32.const {at}) "{text}")'


def _at(at: int, text: str) -> str:
    return f"(i32.const {at}) (i32.const {len(text)})"


def _module(call: str, *texts: str, before: str = "") -> bytes:
    """Ends with the errno of a call; its texts are at 1000, 2000 and so on."""
    data = "".join(_text(1000 * number, text) for number, text in enumerate(texts, 1))
    start = f'(func (export "_start") {before} (call $exit {call}))'
    return _assemble(f'{_IMPORTS} {_EXIT} (memory (export "memory") 2) {data} {start}')


def _open(path: str, *, at: int = 1000, flags: int = 0, rights: int = 2, follow: int = 1) -> str:
    return f"""(call $path_open (i32.const 3) (i32.const {follow}) {_at(at, path)} (i32.const {flags})
      (i64.const {rights}) (i64.const 0) (i32.const 0) (i32.const 100))"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory to grant, with links that lead out of it, beside one with a secret."""
    secret, data = tmp_path / "secret", tmp_path / "data"
    secret.mkdir()
    (secret / "key").write_text("key")
    data.mkdir()
    (data / "f").write_text("of the job")
    (data / "up").symlink_to("../secret")
    (data / "out").symlink_to(secret)
    (data / "d").mkdir()
    return data


def _seen(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir() if path.is_file()}


_OUTSIDE = ("../secret/key", "/etc/passwd", "up/key", "out/key", "/proc/self/environ", "f/../../secret/key",
            "d/../../secret/key", "//etc/passwd", "./../secret/key", "up/../secret/key")  # fmt: skip


@pytest.mark.parametrize("path", _OUTSIDE)
def test_no_name_leads_out_of_a_directory(data: Path, path: str) -> None:
    job = Job(_module(_open(path), path), directories=[Directory(str(data), "/data")])
    status = execute(job).status
    assert isinstance(status, Exited)
    assert status.code != 0
    assert execute(Job(_module(_open("f"), "f"), directories=job.directories)).status == Exited(0)


_THREE = "(i32.const 3)"
#: What a module may try that changes things, by name: a call, and its texts.
_CHANGES = {
    "a link to a file outside": (
        f"(call $path_link {_THREE} (i32.const 1) {_at(1000, '../secret/key')} {_THREE} {_at(2000, 'k')})",
        ("../secret/key", "k"),
    ),
    "a link through a link": (
        f"(call $path_link {_THREE} (i32.const 0) {_at(1000, 'up/key')} {_THREE} {_at(2000, 'k')})",
        ("up/key", "k"),
    ),
    "a file moved out": (
        f"(call $path_rename {_THREE} {_at(1000, 'f')} {_THREE} {_at(2000, '../secret/f')})",
        ("f", "../secret/f"),
    ),
    "a file moved in": (
        f"(call $path_rename {_THREE} {_at(1000, '../secret/key')} {_THREE} {_at(2000, 'k')})",
        ("../secret/key", "k"),
    ),
    "a file moved through a link": (
        f"(call $path_rename {_THREE} {_at(1000, 'out/key')} {_THREE} {_at(2000, 'k')})",
        ("out/key", "k"),
    ),
    "a file removed": (f"(call $path_unlink_file {_THREE} {_at(1000, 'up/key')})", ("up/key",)),
    "a directory made": (f"(call $path_create_directory {_THREE} {_at(1000, '../x')})", ("../x",)),
    "a directory removed": (
        f"(call $path_remove_directory {_THREE} {_at(1000, '../secret')})",
        ("../secret",),
    ),
    "a file made": (_open("out/new", flags=1, rights=64), ("out/new",)),
    "a file emptied": (_open("up/key", flags=8, rights=64), ("up/key",)),
    "a file's times": (
        f"(call $path_filestat_set_times {_THREE} (i32.const 1) {_at(1000, 'up/key')} (i64.const 0) "
        "(i64.const 0) (i32.const 5))",
        ("up/key",),
    ),
    "an absolute link": (
        f"(call $path_symlink {_at(1000, '/etc/passwd')} {_THREE} {_at(2000, 'l')})",
        ("/etc/passwd", "l"),
    ),
}


@pytest.mark.parametrize("name", _CHANGES)
def test_nothing_outside_a_directory_is_changed(data: Path, name: str) -> None:
    call, texts = _CHANGES[name]
    done = execute(Job(_module(call, *texts), directories=[Directory(str(data), "/data")]))
    assert isinstance(done.status, Exited)
    assert done.status.code != 0
    assert _seen(data.parent / "secret") == {"key": "key"}
    assert _seen(data)["f"] == "of the job"
    assert not (data / "k").exists()


def test_a_link_that_the_module_makes_leads_nowhere(data: Path) -> None:
    link = f"(drop (call $path_symlink {_at(2000, '../secret/key')} {_THREE} {_at(1000, 'l')}))"
    done = execute(
        Job(
            _module(_open("l"), "l", "../secret/key", before=link),
            directories=[Directory(str(data), "/")],
        )
    )
    assert isinstance(done.status, Exited)
    assert done.status.code != 0


_WRITES = {
    "write": (_open("f", rights=64), ("f",)),
    "empty": (_open("f", flags=8, rights=64), ("f",)),
    "create": (_open("new", flags=1, rights=64), ("new",)),
    "remove": (f"(call $path_unlink_file {_THREE} {_at(1000, 'f')})", ("f",)),
    "move": (f"(call $path_rename {_THREE} {_at(1000, 'f')} {_THREE} {_at(2000, 'g')})", ("f", "g")),
    "link": (
        f"(call $path_link {_THREE} (i32.const 0) {_at(1000, 'f')} {_THREE} {_at(2000, 'g')})",
        ("f", "g"),
    ),
    "symlink": (f"(call $path_symlink {_at(1000, 'f')} {_THREE} {_at(2000, 'g')})", ("f", "g")),
    "make a directory": (f"(call $path_create_directory {_THREE} {_at(1000, 'g')})", ("g",)),
    "remove a directory": (f"(call $path_remove_directory {_THREE} {_at(1000, 'd')})", ("d",)),
}


@pytest.mark.parametrize("name", _WRITES)
def test_what_is_granted_for_reading_is_not_written(data: Path, name: str) -> None:
    call, texts = _WRITES[name]
    codes = []
    for writable in (False, True):
        directories = [Directory(str(data), "/data", writable)]
        if not writable:
            before = sorted(os.listdir(data))
        done = execute(Job(_module(call, *texts), directories=directories))
        assert isinstance(done.status, Exited)
        codes.append(done.status.code)
        if not writable:
            assert sorted(os.listdir(data)) == before
            assert _seen(data) == {"f": "of the job"}
    assert codes[0] != 0
    assert codes[1] == 0


@pytest.mark.parametrize("pooled", [False, True])
def test_inputs_are_given_and_outputs_are_brought_back(wasm: Wasm, pooled: bool) -> None:
    given = bytes(range(256)) * 1000
    job = Job(wasm("copy"), inputs={"a": given, "other": b""}, outputs=["none", "b"])
    job_tmp = Job(job.module, inputs=job.inputs, limits=Limits(scratch_bytes=MIB))
    # `copy` writes to its last directory, which is /tmp.
    with Pool(1) as pool:
        done = (pool.run if pooled else execute)(job)
        other = (pool.run if pooled else execute)(job_tmp)
    assert (done.status, done.stdout, done.files) == (Exited(0), given, {})
    assert (other.status, other.files) == (Exited(0), {})
    assert "mounts" in done.cage


def _write(name: str, count: int, *, descriptor: int = 4) -> str:
    """Writes a file of 64 KiB blocks in a directory; ends with the errno of the last write."""
    return f"""(drop (call $path_open (i32.const {descriptor}) (i32.const 0) {_at(1000, name)} (i32.const 1)
        (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 100)))
      (i32.store (i32.const 200) (i32.const 0)) (i32.store (i32.const 204) (i32.const 65536))
      (loop $l (global.set $errno
          (call $fd_write (i32.load (i32.const 100)) (i32.const 200) (i32.const 1) (i32.const 208)))
        (global.set $n (i32.add (global.get $n) (i32.const 1)))
        (br_if $l (i32.and (i32.lt_u (global.get $n) (i32.const {count})) (i32.eqz (global.get $errno)))))"""


def _writer(name: str, count: int, *, descriptor: int = 4, before: str = "") -> bytes:
    body = before or _write(name, count, descriptor=descriptor)
    return _assemble(
        f"""{_IMPORTS} {_EXIT} (memory (export "memory") 2) {_text(1000, name)} {_text(2000, "../input/a")}
        (global $errno (mut i32) (i32.const 0)) (global $n (mut i32) (i32.const 0))
        (func (export "_start") {body} (call $exit (global.get $errno)))"""
    )


def test_an_output_is_brought_back_and_counts_as_memory() -> None:
    done = execute(Job(_writer("b", 32), outputs=["b"]))
    assert (done.status, len(done.files["b"])) == (Exited(0), 2 * MIB)
    assert done.memory_bytes is not None
    assert 2 * MIB < done.memory_bytes < 3 * MIB


def test_outputs_have_a_limit() -> None:
    exact = Limits(output_bytes=2 * MIB)
    assert len(execute(Job(_writer("b", 32), outputs=["b"], limits=exact)).files["b"]) == 2 * MIB
    scratch = Limits(output_bytes=2 * MIB - 1, scratch_bytes=MIB)
    assert execute(Job(_writer("b", 32), outputs=["b"], limits=scratch)).status == LimitHit("output")


def test_files_in_memory_have_a_quota() -> None:
    done = execute(Job(_writer("big", 1000, descriptor=5), limits=Limits(scratch_bytes=2 * MIB)))
    assert done.status == Exited(51)  # no space
    assert done.memory_bytes is not None
    assert 2 * MIB < done.memory_bytes < 3 * MIB


def test_files_in_memory_leave_that_much_less_memory(wasm: Wasm) -> None:
    done = execute(Job(wasm("hog"), limits=Limits(memory_bytes=64 * MIB, scratch_bytes=32 * MIB)))
    # It grows by 16 MiB at a time.
    assert (done.status, done.memory_bytes) == (Exited(1), 16 * MIB)
    with pytest.raises(JobRefusedError, match="count as memory; the limit is"):
        execute(Job(wasm("hog"), limits=Limits(memory_bytes=MIB, scratch_bytes=32 * MIB)))


@pytest.mark.parametrize("descriptor", [3])
def test_inputs_cannot_be_changed(descriptor: int) -> None:
    call = _open("a", rights=64)
    done = execute(Job(_module(call, "a"), inputs={"a": b"abc"}))
    assert isinstance(done.status, Exited)
    assert done.status.code != 0


def test_an_output_that_is_a_link_is_none() -> None:
    link = (
        f"(global.set $errno (call $path_symlink {_at(2000, '../input/a')} (i32.const 4) {_at(1000, 'b')}))"
    )
    done = execute(Job(_writer("b", 0, before=link), inputs={"a": b"abc"}, outputs=["b"]))
    assert isinstance(done.status, Exited)
    assert done.files == {}


def test_a_file_is_read_without_the_jobs_input(wasm: Wasm) -> None:
    """The module asks for a file, and its standard input stays for the next reader."""
    reader, writer = os.pipe()
    os.write(writer, b"for the next reader")
    job = Job(wasm("copy"), inputs={"a": b"abc"}, limits=Limits(scratch_bytes=MIB))
    with Worker(grant=grant_of(job)) as worker:
        done = worker.run(job, Streams(stdin=Descriptor(reader)))
    assert (done.stdout, done.input.length) == (b"abc", 0)
    assert os.read(reader, 100) == b"for the next reader"
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\0", "x" * 256, "\udc80"])
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    for job in (Job(b"", inputs={name: b""}), Job(b"", outputs=[name])):
        with pytest.raises(JobRefusedError, match="cannot be the name of a file"):
            grant_of(job)


def test_what_cannot_be_granted_is_refused(tmp_path: Path, data: Path) -> None:
    for job, words in (
        (Job(b"", directories=[Directory(str(tmp_path / "none"), "/")]), "is not a directory"),
        (Job(b"", directories=[Directory(str(data / "f"), "/")]), "is not a directory"),
        (Job(b"", directories=[Directory(str(data), "")]), "cannot be the name of a directory"),
        (Job(b"", directories=[Directory(str(data), "/")] * 2), "comes twice"),
        (Job(b"", outputs=["a", "a"]), "comes twice"),
        (Job(b"", directories=[Directory(str(data), "/")], seed=0), "deterministic"),
        (Job(b"", inputs={"a": b"ab"}, limits=Limits(stdin_bytes=1)), "input files have 2 bytes"),
    ):
        with pytest.raises(JobRefusedError, match=words):
            grant_of(job)


def test_a_worker_without_files_takes_no_job_with_files() -> None:
    with Worker() as worker, pytest.raises(JobRefusedError, match="not started for the files"):
        worker.run(Job(b"", outputs=["a"]))


def test_receipts_have_files_by_their_hashes(wasm: Wasm, data: Path) -> None:
    identity = Identity.ephemeral()
    job = Job(
        _writer("b", 1, descriptor=5),
        inputs={"a": b"abc"},
        outputs=["b", "c"],
        directories=[Directory(str(data), "/data", writable=False)],
    )
    done = execute(job)
    said = receipts.describe(job, done, node=identity.public_key, job_id="j", nonce="")
    found = receipts.verify(receipts.issue(said, identity), key=identity.public_key)
    assert found.inputs == {"a": receipts.Content(hashlib.sha256(b"abc").hexdigest(), 3)}
    assert found.outputs == {"b": receipts.Content(hashlib.sha256(done.files["b"]).hexdigest(), 65536)}
    assert found.directories == (receipts.DirectoryRef("/data", writable=False),)
    assert run(wasm("hello"), identity=identity).execution.files == {}


#: What one who broke out may try: the directory is /0, and the files in memory are /memory.
_BROKEN = {
    "the secret": "os.open(targets['secret'], os.O_RDONLY)",
    "a system file": "os.open('/etc/passwd', os.O_RDONLY)",
    "up": "os.open('/0/' + '../' * 20 + targets['secret'], os.O_RDONLY)",
    "a link": "os.open('/0/out/key', os.O_RDONLY)",
    "a link of its own": "os.symlink(targets['secret'], '/0/mine'); os.open('/0/mine', os.O_RDONLY)",
    "proc": "os.open('/proc/self/environ', os.O_RDONLY)",
    "the root": "os.mkdir('/mine')",
    "what is in the root": "os.listdir('/')",
    "a program": "os.execve('/0/f', ['f'], {})",
    "a device": "os.mknod('/memory/tmp/null', 0o20666, os.makedev(1, 3))",
    "a pipe": "os.mkfifo('/0/pipe')",
    "a socket": "socket.socket(socket.AF_UNIX).bind('/0/socket')",
    "rights": "os.chmod('/0/f', 0o4777)",
    "owner": "os.chown('/0/f', 1, 1)",
    "another root": "os.chroot('/0')",
    "a mount": "call(165, 40, 0, 0, 0, 0, 0)",
    "namespaces": "call(272, 97, 0x20000)",
    "more than the quota": "fd = os.open('/memory/tmp/x', os.O_CREAT | os.O_WRONLY)\n"
    "while True: os.write(fd, bytes(1 << 20))",
}  # fmt: skip


def _granted(data: Path, *, writable: bool = True) -> Job:
    return Job(
        MODULE, directories=[Directory(str(data), "/data", writable)], limits=Limits(scratch_bytes=MIB)
    )


_NO_FILTER = "from phase.jobs import calls; calls.close = lambda libc, files=False: None"
_NO_LANDLOCK = "from phase.jobs import landlock; landlock.close = lambda libc, but=(): 0"


@pytest.mark.parametrize("before", ["", f"{_NO_FILTER}; {_NO_LANDLOCK}"], ids=["all layers", "mounts alone"])
@pytest.mark.parametrize("name", _BROKEN)
def test_a_job_that_broke_out_has_its_files_alone(data: Path, name: str, before: str) -> None:
    if before and name in (
        "a pipe",
        "a socket",
        "rights",
        "owner",
        "namespaces",
        "what is in the root",
        "another root",
    ):
        pytest.skip("within its own directory, or of no use without capabilities")
    ended = ending(
        attempt(_BROKEN[name], Targets(1, str(data.parent / "secret/key")), before, job=_granted(data))
    )
    assert ended.startswith(("refused: ", "killed by signal 31", "killed by signal 25")), ended
    assert _seen(data.parent / "secret") == {"key": "key"}


@pytest.mark.parametrize("before", ["", _NO_FILTER, f"{_NO_FILTER}; {_NO_LANDLOCK}"])
@pytest.mark.parametrize("code", [
    "os.open('/0/f', os.O_RDWR)", "os.unlink('/0/f')", "os.rename('/0/f', '/0/g')",
    "os.open('/0/n', os.O_CREAT)", "os.utime('/0/f', (0, 0))", "os.truncate('/0/f', 0)",
    "os.link('/0/f', '/0/g')", "os.mkdir('/0/g')",
])  # fmt: skip
def test_a_job_that_broke_out_cannot_write_what_it_may_read(data: Path, code: str, before: str) -> None:
    ended = ending(attempt(code, Targets(1), before, job=_granted(data, writable=False)))
    assert ended.startswith(("refused: ", "killed by signal 31")), ended
    assert sorted(os.listdir(data)) == ["d", "f", "out", "up"]
    assert _seen(data) == {"f": "of the job"}


def test_a_job_that_broke_out_can_use_what_it_is_granted(data: Path) -> None:
    """So the attempts above fail for what they try."""
    code = """
fd = os.open('/0', os.O_RDONLY)
os.open('new', os.O_CREAT | os.O_WRONLY, dir_fd=fd)
os.mkdir('x', dir_fd=fd)
os.rename('new', 'x/new', src_dir_fd=fd, dst_dir_fd=fd)
"""
    assert ending(attempt(code, Targets(1), job=_granted(data))) == "done"
    assert (data / "x/new").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_grants_files_too(wasm: Wasm) -> None:
    with tempfile.TemporaryDirectory(prefix="files-") as directory:
        _grant_as_another(Path(directory), wasm)


def _grant_as_another(mine: Path, wasm: Wasm) -> None:
    (mine / "a").write_bytes(b"abc")
    (mine / "a").chmod(0o600)
    for path in (mine, mine / "a"):
        os.chown(path, 12_345, 12_345)
    code = """
import sys
from phase.jobs.job import Directory
from phase.jobs.runner import Job, execute
job = Job(sys.stdin.buffer.read(), directories=[Directory(sys.argv[1], "/data")])
done = execute(job)
print(done.status, done.stdout, done.cage)
print(execute(Job(job.module, inputs={"a": b"xy"}, outputs=["b"])).stdout)
"""
    done = subprocess.run(
        [*("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"),
         *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
         sys.executable, "-c", code, str(mine)],
        input=wasm("copy"), env={"PYTHONPATH": str(PROJECT)}, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.startswith(b"Exited(code=0) b'abc'"), done.stderr
    assert done.stdout.endswith(b"b'xy'\n")
    assert (mine / "b").read_bytes() == b"abc"
    assert (mine / "b").stat().st_uid == 12_345
