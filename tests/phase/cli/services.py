"""Services in the process of a test: when one says that it is ready, something is done, then it is ended."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")


@contextmanager
def when_ready(
    directory: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[], T]
) -> Iterator[Future[T]]:
    """Within, a service may run in this thread: as systemd does, wait for its word; then act, and end it.

    Args:
        directory: for the socket.
        monkeypatch: of the test.
        act: called in another thread; the future has what it returned or raised.
    """
    done: Future[T] = Future()
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("phase.cli.serve.end_in_time", lambda: None)  # it would end the tests
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(directory / "notify"))
        heard.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(directory / "notify"))

        def watch() -> None:
            try:
                while (word := heard.recv(100)) not in (b"READY=1", b"OVER"):
                    pass
                if word == b"OVER":
                    done.set_exception(AssertionError("it ended before it was ready"))
                    return
                done.set_result(act())
            except BaseException as error:
                done.set_exception(error)
            os.kill(os.getpid(), signal.SIGTERM)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield done
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"OVER", str(directory / "notify"))
            thread.join()
            signal.signal(signal.SIGTERM, before)
