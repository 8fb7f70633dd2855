"""The dialogue with the agent: bytes that are lost or garbled, logins, and shells that lack something."""

import hashlib
import os
import re
import shutil
import socket
import tempfile
import time
from pathlib import Path

import pytest

from lab.console import Console
from lab.dialogue import Dialogue
from lab.errors import MachineDied, MachineError, WaitTimeout
from lab.shell import Shell
from tests.lab.terminal import Terminal


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
