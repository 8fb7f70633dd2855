"""Keeps a topology alive for a person: one socket per console, to attach to.

The test runner holds; `python -m lab console` attaches. Nothing outlives the runner: the sockets lie in the
lab's own directory.
"""

import contextlib
import os
import select
import socket
import sys
import tempfile
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

from lab.console import Console
from lab.errors import InfrastructureError, MisuseError
from lab.topology import Lab

#: Ctrl-], as telnet has it.
LEAVE = b"\x1d"
_SUFFIX = ".attach"
#: Bytes of the past that a person is shown on attaching.
_PAST = 4000
_POLL = 0.1


def hold(lab: Lab, say: Callable[[str], None], *, until: Callable[[], bool] = lambda: False) -> None:
    """Keep the machines of a lab on until Ctrl-C.

    Args:
        lab: what is held; its machines are left as they are.
        say: told, line by line, how to attach.
        until: asked now and then; ends it when true.
    """
    with contextlib.ExitStack() as stack:
        on = [vm for vm in lab.machines.values() if vm.running]
        say(f"lab: held, process {os.getpid()}. Ctrl-C takes it down. To attach, in another terminal:")
        for vm in on:
            stack.enter_context(offered(vm.console, lab.directory / f"{vm.name}{_SUFFIX}"))
            say(f"  python -m lab console {vm.name}    # {vm.arch}")
        if on:
            say("  Ctrl-] leaves a console; @bye, typed there, ends the lab's own shell and gives you one.")
        else:
            say("  (no machine is on any more)")
        with contextlib.suppress(KeyboardInterrupt):
            while not until():
                time.sleep(_POLL)
        say("lab: let go")


@contextlib.contextmanager
def offered(console: Console, path: Path) -> Iterator[None]:
    """Let one person at a time attach to a console.

    Args:
        console: whose.
        path: of the socket; gone at the end.
    """
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o600)
    # A probe waits in this queue, too, while somebody is attached.
    listener.listen(16)
    listener.settimeout(_POLL)
    ended = threading.Event()
    thread = threading.Thread(target=_serve, args=(console, listener, ended), name=f"hold-{console.name}")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        listener.close()
        path.unlink(missing_ok=True)


def _serve(console: Console, listener: socket.socket, ended: threading.Event) -> None:
    while not ended.is_set():
        try:
            person, _ = listener.accept()
        except TimeoutError:
            continue
        with person, contextlib.suppress(OSError, InfrastructureError):
            _relay(console, person, ended)


def _relay(console: Console, person: socket.socket, ended: threading.Event) -> None:
    position = max(0, console.size - _PAST)
    while not ended.is_set():
        told = console.read_from(position, 65536, 0)
        person.sendall(told)
        position += len(told)
        ready, _, _ = select.select([person], [], [], _POLL / 5)
        if ready:
            typed = person.recv(4096)
            if not typed:
                return
            console.send(typed.decode("utf-8", "replace"))


def held() -> dict[str, Path]:
    """The consoles that are offered on this host now: name to socket.

    A name that two labs use is followed by the process that holds it.
    """
    found: dict[str, Path] = {}
    for path in sorted(Path(tempfile.gettempdir()).glob(f"lab-*/*{_SUFFIX}")):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            if path.stat().st_uid == os.geteuid():
                # It does not wait: while a person is attached, the socket does not accept.
                probe.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    probe.connect(str(path))
                name = path.name.removesuffix(_SUFFIX)
                found[f"{name}@{path.parent.name.split('-')[1]}" if name in found else name] = path
    return found


def attach(name: str) -> None:
    """Sit at a console until Ctrl-], or until it ends.

    Args:
        name: as `held` has it.

    Raises:
        MisuseError: no such console is offered.
    """
    consoles = held()
    if name not in consoles:
        there = ", ".join(consoles) or "none; pytest --lab-hold keeps the next failure"
        raise MisuseError(f"no console of {name!r} is held; there is: {there}")
    keyboard = sys.stdin.fileno()
    with socket.socket(socket.AF_UNIX) as line, _raw(keyboard):
        line.connect(str(consoles[name]))
        watched: list[socket.socket | int] = [line, keyboard]
        while True:
            ready, _, _ = select.select(watched, [], [])
            if line in ready:
                told = line.recv(65536)
                if not told:
                    return
                os.write(sys.stdout.fileno(), told)
            if keyboard in ready:
                typed = os.read(keyboard, 4096)
                if LEAVE in typed:
                    return
                if not typed:
                    # What was piped in is through; what it brings about is still to be seen.
                    watched.remove(keyboard)
                line.sendall(typed)


@contextlib.contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """Give every key to the machine, Ctrl-C too, when it is a terminal."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
