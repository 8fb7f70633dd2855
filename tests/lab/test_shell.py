"""The shell against a real terminal with a real `sh`, over wires of every quality."""

import hashlib
import os
import pty
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.console import Console
from lab.dialogue import Dialogue
from lab.errors import MachineDied, MachineError, MisuseError, ProductError, WaitTimeout
from lab.shell import Shell

NOBODY = 65534


class Terminal:
    """An interactive `sh` on a terminal, and a wire to it that drops and garbles one byte in `noise`."""

    COMMAND: tuple[str, ...] = ("sh", "-i")

    def __init__(self, log: Path, *, noise: float = 0.0, seed: int = 1, factor: float = 1.0) -> None:
        self._master, slave = pty.openpty()
        # Not as root: root may write the host's kernel log, where a guest's answers go.
        user = NOBODY if os.geteuid() == 0 else os.geteuid()
        os.fchown(slave, user, -1)
        # A shell that starts with ^C ignored, as whatever a script runs in its background does, keeps that.
        command = ["env", "--default-signal=INT", "setsid", "--ctty", *self.COMMAND]
        self._child = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, cwd="/", user=user)
        os.close(slave)
        self._far, near = socket.socketpair()
        self._stop = threading.Event()
        self.noise = noise
        self.spoilt = 0
        self._random = random.Random(seed)  # noqa: S311 - a test that can be run again
        self._carrier = threading.Thread(target=self._carry)
        self._carrier.start()
        self.console = Console("one", near, log, factor=factor)

    def _carry(self) -> None:
        while not self._stop.is_set():
            ready, _, _ = select.select([self._master, self._far.fileno()], [], [], 0.05)
            try:
                if self._master in ready:
                    self._far.sendall(self._spoil(os.read(self._master, 65536)))
                if self._far.fileno() in ready:
                    os.write(self._master, self._spoil(self._far.recv(65536)))
            except OSError:
                return

    def _spoil(self, data: bytes) -> bytes:
        out = bytearray()
        for byte in data:
            draw = self._random.random()
            if draw < self.noise:
                self.spoilt += 1
                if draw < self.noise / 2:
                    out.append(self._random.randrange(256))
            else:
                out.append(byte)
        return bytes(out)

    def cut(self) -> None:
        self._stop.set()
        self._carrier.join()

    def close(self) -> None:
        self._child.kill()
        self._child.wait()
        self._stop.set()
        self._carrier.join()
        os.close(self._master)
        self._far.close()
        self.console.close()


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Console]:
    terminal = Terminal(tmp_path / "log")
    yield terminal.console
    terminal.close()


def test_output_and_exit_codes(console: Console) -> None:
    shell = Shell(console, timeout=20)
    assert shell.run("echo out; echo err >&2; exit 7") == (7, "out\nerr\n")
    assert shell.run("true") == (0, "")
    assert shell.run("printf 'no newline'") == (0, "no newline")
    assert shell.run("cat") == (0, ""), "a command must not read what is typed next"
    assert shell.succeed("if true\nthen echo 'a  b' \"c\"\nfi # done") == "a  b c"
    assert (
        shell.run("printf '\\001\\377\\n\\r\\033[1m'").output == "\x01\N{REPLACEMENT CHARACTER}\n\r\x1b[1m"
    )


def test_output_longer_than_any_buffer(console: Console) -> None:
    assert Shell(console, timeout=20).succeed("seq 1 20000").count("\n") == 19999


def test_verbs_judge(console: Console) -> None:
    shell = Shell(console, timeout=20)
    with pytest.raises(ProductError, match="`echo why; exit 3` exited 3") as failed:
        shell.succeed("echo why; exit 3")
    assert failed.value.evidence == "why\n"
    assert shell.fail("echo why; exit 3") == "why"
    with pytest.raises(ProductError, match="succeeded and should not"):
        shell.fail("true")


def test_without_a_terminal(tmp_path: Path) -> None:
    """As on a virtio port: a shell between pipes. Nothing it is asked or answers goes elsewhere."""
    far, near = socket.socketpair()
    command = ["sh", "-c", "cat | sh 2>&1 | cat"]
    child = subprocess.Popen(command, stdin=far.fileno(), stdout=far.fileno(), start_new_session=True)
    console = Console("one (port)", near, tmp_path / "log")
    try:
        shell = Shell(console, timeout=20)
        assert shell.run("echo out; echo err >&2; exit 7") == (7, "out\nerr\n")
        assert shell.succeed("seq 1 3000").count("\n") == 2999
        sent = os.urandom(100_000)
        shell.put(str(tmp_path / "file"), sent)
        assert (tmp_path / "file").read_bytes() == sent == shell.get(str(tmp_path / "file"))
        waits = shell.suspend("say waits $n; read -r line </proc/$$/fd/0; echo got $line")
        assert Shell(console, suspended=waits).resume("it").output.startswith("got it ")
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        console.close()
        far.close()


class Garbler(Terminal):
    """A wire that changes letters of a command's output, and nothing else."""

    def _spoil(self, data: bytes) -> bytes:
        changed = re.sub(rb"( raw \d+ \d+ )[A-Za-z0-9+/]{4}", rb"\1WFhY", data)
        self.spoilt += changed != data
        return changed


def test_output_that_was_garbled_is_fetched_again(tmp_path: Path) -> None:
    """It is still base64, and as long as it was: only its digest tells."""
    terminal = Garbler(tmp_path / "log")
    try:
        shell = Shell(terminal.console, timeout=20)
        assert shell.run("echo abcdefghij") == (0, "abcdefghij\n")
        assert terminal.spoilt > 0
    finally:
        terminal.close()


@pytest.mark.parametrize("key", ["\x13", "'", "\x1a", "\x16", "if "])
def test_on_a_terminal_that_somebody_left_in_a_mess(console: Console, key: str) -> None:
    """Output held by ^S, an open quote, a word that waits for others: each is a byte garbled."""
    console.send(key)
    assert Shell(console, timeout=60).succeed("echo answers") == "answers"


def test_waits_until_it_succeeds(console: Console) -> None:
    shell = Shell(console, timeout=20)
    counter = "/tmp/lab-test-$$"
    command = f"echo >>{counter}; [ $(wc -l <{counter}) -ge 3 ] && rm {counter} && echo third"
    assert shell.wait_until_succeeds(command, timeout=20, pause=0.01) == "third"
    with pytest.raises(ProductError, match="still exits 1 after"):
        shell.wait_until_succeeds("false", timeout=0.2, pause=0.01)


def test_a_command_that_hangs_and_one_after_it(console: Console) -> None:
    shell = Shell(console, timeout=20)
    with pytest.raises(WaitTimeout):
        shell.run("sleep 1", timeout=0.2)
    assert shell.succeed("echo next", timeout=20) == "next"


def test_timeouts_follow_the_factor(console: Console) -> None:
    console.factor = 10
    shell = Shell(console, timeout=2)
    assert shell.run("sleep 1", timeout=0.5).code == 0


def test_refuses_what_the_terminal_would_cut(console: Console) -> None:
    shell = Shell(console, timeout=20)
    with pytest.raises(MisuseError, match=r"a command of 4000 bytes cannot be typed"):
        shell.run(": " + "x" * 3998)
    longest = next(n for n in range(4000, 0, -1) if _fits(shell, n))
    assert longest > 2000


def _fits(shell: Shell, size: int) -> bool:
    try:
        result = shell.run("echo " + "x" * (size - 5))
    except MisuseError:
        return False
    assert len(result.output) == size - 4
    return True


@pytest.mark.parametrize("size", [0, 1, 1499, 1500, 1501, 10_000])
def test_puts_files(console: Console, size: int) -> None:
    shell = Shell(console, timeout=20)
    data = os.urandom(size)
    shell.succeed("mkdir -p '/tmp/lab it'\\''s'")
    shell.put("/tmp/lab it's/file", data)
    assert Path("/tmp/lab it's/file").read_bytes() == data
    shell.succeed("rm -r '/tmp/lab it'\\''s'")


def test_gets_files(console: Console, tmp_path: Path) -> None:
    shell = Shell(console, timeout=20)
    data = os.urandom(120_000)
    path = Path("/tmp/lab-get-test")
    path.write_bytes(data)
    path.chmod(0o644)
    try:
        assert shell.get(str(path)) == data
    finally:
        path.unlink()
    with pytest.raises(ProductError):
        shell.get("/nowhere")


def test_a_second_shell_takes_over_the_agent(console: Console) -> None:
    Shell(console, timeout=20).succeed("true")
    shell = Shell(console, timeout=20)
    assert shell.succeed("echo again") == "again"
    assert console.text.count("ready") == 2


def test_a_person_gets_the_terminal_back(console: Console) -> None:
    Shell(console, timeout=20)
    since = len(console.lines)
    console.send("@bye\nexpr 20 + 22\n")
    console.wait_line(r"^42$", timeout=20, since=since)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_on_a_line_that_drops_and_garbles(tmp_path: Path, seed: int) -> None:
    """One byte in a thousand: every answer is right, and no command runs twice."""
    terminal = Terminal(tmp_path / "log", noise=1e-3, seed=seed, factor=0.2)
    # Not below pytest's own directory: each pytest of this user that starts closes that to other users.
    room = Path(tempfile.mkdtemp(prefix="lab-noise-"))
    room.chmod(0o777)
    count, file = room / "count", room / "file"
    try:
        shell = Shell(terminal.console, timeout=300, piece=256)
        for number in range(12):
            result = shell.run(f"echo {number} >>{count}; echo out {number}; exit {number}", timeout=200)
            assert result == (number, f"out {number}\n")
        data = os.urandom(6_000)
        shell.put(str(file), data, timeout=300)
        assert shell.get(str(file), timeout=300) == data
        assert count.read_text().split() == [str(number) for number in range(12)]
    finally:
        terminal.close()
        shutil.rmtree(room)
    assert terminal.spoilt > 10


def test_a_hopeless_line_never_passes(tmp_path: Path) -> None:
    """One byte in twenty, after the shell answered: an error, never a wrong answer."""
    terminal = Terminal(tmp_path / "log", factor=0.2)
    try:
        shell = Shell(terminal.console, timeout=20, piece=256)
        terminal.noise = 0.05
        for number in range(3):
            with pytest.raises((WaitTimeout, MachineError)):
                shell.run(f"echo {number}; seq 2000; exit 7", timeout=15)
    finally:
        terminal.close()


def test_a_forged_answer_is_none(tmp_path: Path) -> None:
    """Digests that do not hold are not believed, whatever they say."""
    far, near = socket.socketpair()
    console = Console("one", near, tmp_path / "log")
    dialogue = Dialogue(console, 1500)
    dialogue.session = "00000000"
    assert dialogue.read("lab-00000000 end 1 0 0 " + "0" * 64 + " 000000000000") is None
    body = "00000000 end 1 0 0 " + "0" * 64
    digest = hashlib.sha256(f"{body}\n".encode()).hexdigest()[:12]
    assert dialogue.read(f"[ 1.0] lab-{body} {digest}") == body.split()[1:]
    assert dialogue.read(f"lab-{body.replace('end 1 0', 'end 1 1')} {digest}") is None
    far.close()
    console.close()


def test_nobody_answers(tmp_path: Path) -> None:
    far, near = socket.socketpair()
    console = Console("one", near, tmp_path / "log")
    with pytest.raises(WaitTimeout, match="one: no shell answered within 0 s"):
        Shell(console, timeout=0.1)
    assert b"stty -echo" in far.recv(65536)
    far.close()
    console.close()


def test_a_machine_that_owes_an_answer_and_says_nothing_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.dialogue.SILENCE", 1)
    terminal = Terminal(tmp_path / "log")
    try:
        shell = Shell(terminal.console, timeout=20)
        # One that runs owes nothing.
        assert shell.succeed("sleep 3", timeout=20) == ""
        terminal.cut()
        begun = time.monotonic()
        with pytest.raises(MachineDied, match="one: silence: not a byte for 1 s, typing `true`"):
            shell.run("true", timeout=60)
        assert time.monotonic() - begun < 10
    finally:
        terminal.close()


def test_a_command_that_timed_out_is_ended_and_the_shell_goes_on(console: Console) -> None:
    """With everything it has started, and a shell that reads the terminal has nothing in its way."""
    shell = Shell(console, timeout=20)
    begun = time.monotonic()
    with pytest.raises(WaitTimeout, match=r"`\(sleep 987654\)` did not end in time; it was ended"):
        shell.run("(sleep 987654)", timeout=1)
    assert shell.succeed("echo next", timeout=20) == "next"
    assert time.monotonic() - begun < 60
    assert shell.fail("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep 'sleep 98765[4]'") == ""
    assert console.text.count("ready") == 1, "no new session was needed"


def test_output_of_a_command_that_was_ended_is_not_the_next_ones(console: Console) -> None:
    shell = Shell(console, timeout=20)
    with pytest.raises(WaitTimeout):
        shell.run("while :; do echo noise; sleep 0.05; done", timeout=1)
    assert shell.run("echo next", timeout=20) == (0, "next\n")


def test_two_shells_on_one_console_by_turns(console: Console) -> None:
    first, second = Shell(console, timeout=20), Shell(console, timeout=20)
    for number in range(2):
        assert first.succeed(f"echo first {number}", timeout=20) == f"first {number}"
        assert second.succeed(f"echo second {number}", timeout=20) == f"second {number}"


def test_two_threads_on_one_console_are_a_mistake(console: Console) -> None:
    shell = Shell(console, timeout=20)
    other = threading.Thread(target=lambda: shell.run("sleep 2", timeout=20))
    other.start()
    try:
        while not console.typing.locked():
            time.sleep(0.01)
        with pytest.raises(MisuseError, match="another thread uses a shell"):
            Shell(console, timeout=20)
    finally:
        other.join()


class Bare(Terminal):
    """A shell that finds these programs only."""

    TOOLS: tuple[str, ...] = ()

    def __init__(self, log: Path) -> None:
        self._room = tempfile.TemporaryDirectory(prefix="lab-bare-")
        directory = Path(self._room.name)
        directory.chmod(0o755)
        for name in self.TOOLS:
            (directory / name).symlink_to(shutil.which(name) or name)
        super().__init__(log)
        self.console.send(f"PATH={directory}\n")

    def close(self) -> None:
        super().close()
        self._room.cleanup()


class NothingWritable(Terminal):
    """A shell of a user who can write neither to /run nor to /dev, where /tmp is read-only."""

    COMMAND = (
        *("unshare", "--user", "--map-root-user", "--mount", "sh", "-c"),
        "mount -t tmpfs -o ro none /tmp; exec sh -i",
    )


class WithoutBase64(Bare):
    TOOLS = ("cat", "rm", "sed", "sha256sum", "wc", "stty", "tty", "sh", "sleep")


class WithoutTty(Bare):
    TOOLS = ("base64", "cat", "rm", "sed", "sha256sum", "wc", "head", "sh", "sleep", "seq")


def test_a_shell_without_base64_says_so(tmp_path: Path) -> None:
    terminal = WithoutBase64(tmp_path / "log")
    begun = time.monotonic()
    try:
        with pytest.raises(
            MachineError, match=r"one: the shell there lacks base64; the lab's needs base64, cat"
        ):
            Shell(terminal.console, timeout=120)
    finally:
        terminal.close()
    assert time.monotonic() - begun < 40


def test_files_of_an_earlier_agent_of_another_user_are_not_in_the_way(console: Console) -> None:
    """The number of a process comes again. A name with it only once met what a killed agent had left."""
    assert re.fullmatch(r"/tmp/\.lab-[0-9a-f]{8}", Shell(console, timeout=20).succeed("echo $O"))


def test_an_agent_whose_terminal_is_gone_leaves_nothing(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path / "log")
    try:
        shell = Shell(terminal.console, timeout=20)
        files = Path(shell.succeed("echo $O"))
        assert list(files.parent.glob(f"{files.name}*"))
    finally:
        terminal.close()
    gone = time.monotonic() + 20
    while left := list(files.parent.glob(f"{files.name}*")):
        assert time.monotonic() < gone, left
        time.sleep(0.05)


def test_a_shell_that_can_write_nowhere_says_so(tmp_path: Path) -> None:
    terminal = NothingWritable(tmp_path / "log")
    try:
        with pytest.raises(
            MachineError, match=r"one: the shell there can write to none of /tmp, /run and /dev;"
        ):
            Shell(terminal.console, timeout=120)
        terminal.console.send("expr 20 + 22\n")
        terminal.console.wait_line(r"^42$", timeout=20)
    finally:
        terminal.close()


def test_a_shell_without_stty_and_tty_does(tmp_path: Path) -> None:
    """Without /dev/console, or without a right to it, the shell that is there runs the agent itself."""
    terminal = WithoutTty(tmp_path / "log")
    try:
        shell = Shell(terminal.console, timeout=60)
        assert shell.succeed("seq 1 3000", timeout=60).count("\n") == 2999
        assert shell.run("exit 3", timeout=60).code == 3
    finally:
        terminal.close()


def test_a_stream_that_loses_bytes_is_sent_again_line_by_line(tmp_path: Path) -> None:
    class Leaky(Terminal):
        def _spoil(self, data: bytes) -> bytes:
            if len(data) > 3000 and self.noise:
                self.spoilt += 1
                return data[:-100]
            return data

    terminal = Leaky(tmp_path / "log")
    file = Path("/tmp/lab-leaky-test")
    try:
        shell = Shell(terminal.console, timeout=20)
        terminal.noise = 1
        data = os.urandom(9_000)
        shell.put(str(file), data, timeout=200)
        assert file.read_bytes() == data
        assert terminal.spoilt > 0
    finally:
        terminal.close()
        file.unlink(missing_ok=True)


LOGIN = r"""
while :; do
printf 'one login: '; read -r name
[ "$name" != guest ] || exec sh -i
stty -echo; printf 'Password: '; read -r word; stty echo; echo
[ "$name $word" != "root secret" ] || exec sh -i
echo 'Login incorrect'
done
"""


class Guarded(Terminal):
    """A terminal that asks who is there, as getty and login do."""

    COMMAND = ("sh", "-c", LOGIN)


@pytest.mark.parametrize("login", [("root", "secret"), ("guest", "")])
def test_logs_in(tmp_path: Path, login: tuple[str, str]) -> None:
    terminal = Guarded(tmp_path / "log")
    try:
        shell = Shell(terminal.console, timeout=60, login=login)
        assert shell.succeed("echo in", timeout=60) == "in"
        assert "secret" not in terminal.console.text
    finally:
        terminal.close()


@pytest.mark.parametrize("login", [("root", "secret"), ("guest", "")])
def test_logs_in_where_the_answer_is_there_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, login: tuple[str, str]
) -> None:
    terminal = Guarded(tmp_path / "log")
    send, typed = terminal.console.send, []

    def late(text: str) -> None:
        send(text)
        typed.append(text)
        if len(typed) <= 2:
            time.sleep(1)

    monkeypatch.setattr(terminal.console, "send", late)
    try:
        assert Shell(terminal.console, timeout=20, login=login).succeed("echo in", timeout=60) == "in"
    finally:
        terminal.close()


@pytest.mark.parametrize(
    ("login", "words"),
    [
        (None, r"one asks for a login \(`one login: `\)"),
        (("root", "wrong"), "one refuses the login of root"),
    ],
)
def test_a_login_that_is_missing_or_wrong_is_said_at_once(
    tmp_path: Path, login: tuple[str, str] | None, words: str
) -> None:
    terminal = Guarded(tmp_path / "log")
    begun = time.monotonic()
    try:
        with pytest.raises(MachineError, match=words):
            Shell(terminal.console, timeout=300, login=login)
    finally:
        terminal.close()
    assert time.monotonic() - begun < 60
