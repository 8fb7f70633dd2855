"""The shell against a real terminal with a real `sh`; a scripted far end where a real one will not lie."""

import base64
import hashlib
import os
import pty
import re
import select
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.console import Console
from lab.errors import MachineError, MisuseError, ProductError, WaitTimeout
from lab.shell import Shell

NOBODY = 65534


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Console]:
    """A console with an interactive `sh` on a terminal behind it."""
    master, slave = pty.openpty()
    # Not as root: root may write the host's kernel log, where a guest's answers go.
    user = NOBODY if os.geteuid() == 0 else os.geteuid()
    os.fchown(slave, user, -1)
    child = subprocess.Popen(
        ["setsid", "--ctty", "sh", "-i"], stdin=slave, stdout=slave, stderr=slave, cwd="/", user=user
    )
    os.close(slave)
    far, near = socket.socketpair()
    stop = threading.Event()

    def carry() -> None:
        while not stop.is_set():
            ready, _, _ = select.select([master, far.fileno()], [], [], 0.05)
            try:
                if master in ready:
                    far.sendall(os.read(master, 65536))
                if far.fileno() in ready:
                    os.write(master, far.recv(65536))
            except OSError:
                return

    carrier = threading.Thread(target=carry)
    carrier.start()
    made = Console("one", near, tmp_path / "log")
    yield made
    child.kill()
    child.wait()
    stop.set()
    carrier.join()
    os.close(master)
    far.close()
    made.close()


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
    shell = Shell(console, timeout=2, factor=10)
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


class Liar:
    """A far end that answers as it is told to."""

    def __init__(self, tmp_path: Path) -> None:
        self.end, near = socket.socketpair()
        self.console = Console("one", near, tmp_path / "log")
        self.output = b"output\n"
        self.digest = ""
        self.noise = b""
        self.thread = threading.Thread(target=self._answer)
        self.thread.start()

    def _answer(self) -> None:
        for line in self.end.makefile("r"):
            # A terminal echoes what is typed: it must not be taken for an answer.
            self.end.sendall(line.encode())
            nonce = re.search(r"\bn=(\w+);", line)
            if nonce and "ready" in line:
                self._say(f"lab-ready {nonce[1]}")
            elif nonce:
                encoded = base64.b64encode(self.output).decode()
                self._say(f"[ 1.0] lab-out {nonce[1]} {encoded[:4]}")
                self._say(f"[ 1.0] lab-out {nonce[1]} {encoded[4:]}")
                digest = self.digest or hashlib.sha256(self.output).hexdigest()
                self._say(f"[ 1.0] lab-end {nonce[1]} 0 {digest}")

    def _say(self, line: str) -> None:
        self.end.sendall(self.noise + line.encode() + b"\r\n" + self.noise)

    def close(self) -> None:
        self.end.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.end.close()
        self.console.close()


@pytest.fixture
def liar(tmp_path: Path) -> Iterator[Liar]:
    made = Liar(tmp_path)
    yield made
    made.close()


def test_kernel_messages_around_an_answer(liar: Liar) -> None:
    liar.noise = b"[ 2.0] lab-out 00000000 AAAA\r\n[ 2.0] random: crng init done\r\nhalf a line, then "
    assert Shell(liar.console).succeed("x") == "output"


def test_an_answer_that_lost_a_piece_is_no_answer(liar: Liar) -> None:
    liar.digest = "0" * 64
    with pytest.raises(MachineError, match="did not arrive whole"):
        Shell(liar.console).run("x")


def test_nobody_answers(tmp_path: Path) -> None:
    far, near = socket.socketpair()
    console = Console("one", near, tmp_path / "log")
    with pytest.raises(WaitTimeout, match="one: no shell answered within 0 s"):
        Shell(console, timeout=0.1)
    assert b"stty -echo" in far.recv(65536)
    far.close()
    console.close()
