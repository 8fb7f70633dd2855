"""The shell against a real terminal with a real `sh`."""

import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.console import Console
from lab.errors import MisuseError, ProductError, WaitTimeout
from lab.shell import Shell
from tests.lab.terminal import Terminal


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


def test_files_of_an_earlier_agent_of_another_user_are_not_in_the_way(console: Console) -> None:
    """The number of a process comes again. A name with it only once met what a killed agent had left."""
    assert re.fullmatch(r"/tmp/\.lab-[0-9a-f]{8}", Shell(console, timeout=20).succeed("echo $O"))
