"""A provider that has too much to do says when to ask again; so it is, in bounds."""

import socket
import threading
import time

import pytest

from fixtures.hostile.server import Answer, Asked, Server
from phase.fetch import Client, ExhaustedError


def busy(times: int, status: int, *headers: str) -> tuple[Answer, list[float]]:
    """Answers so for the first questions, then with the file; when each was asked."""
    asked: list[float] = []

    def answer(request: Asked, connection: socket.socket, stop: threading.Event) -> bool:
        asked.append(time.monotonic())
        if len(asked) <= times:
            lines = "".join(f"{each}\r\n" for each in headers)
            head = f"HTTP/1.1 {status} .\r\nContent-Length: 4\r\n{lines}Connection: close\r\n\r\nbusy"
            connection.sendall(head.encode())
            return False
        connection.sendall(b"HTTP/1.1 200 .\r\nContent-Length: 4\r\n\r\nfile")
        return True

    return answer, asked


def given_up(answer: Answer, asked: list[float]) -> int:
    """How often it was asked until a client gave it up."""
    with (
        Server(answer) as server,
        Client([server.url], timeout=30) as client,
        pytest.raises(ExhaustedError, match="it answers 503"),
    ):
        client.get("/status", 100)
    return len(asked)


@pytest.mark.parametrize("status", [429, 503])
def test_it_is_asked_again_when_it_says(status: int) -> None:
    answer, asked = busy(2, status, "Retry-After: 1")
    with Server(answer) as server, Client([server.url], timeout=30) as client:
        assert client.get("/status", 100) == b"file"
    assert len(asked) == 3
    assert asked[1] - asked[0] >= 1
    assert asked[2] - asked[1] >= 1


@pytest.mark.parametrize(
    "after",
    [
        "",
        "Retry-After: 6",
        "Retry-After: 9999",
        "Retry-After: -1",
        "Retry-After: Wed, 21 Oct 2026 07:28:00 GMT",
    ],
)
def test_one_that_names_no_time_or_a_long_one_is_not_waited_for(after: str) -> None:
    assert given_up(*busy(1, 503, *([after] if after else []))) == 1


def test_one_that_is_always_busy_is_given_up() -> None:
    assert given_up(*busy(99, 503, "Retry-After: 0")) == 4


def test_it_is_not_waited_for_beyond_the_time_that_is_left() -> None:
    answer, asked = busy(9, 503, "Retry-After: 5")
    began = time.monotonic()
    with (
        Server(answer) as server,
        Client([server.url], timeout=2) as client,
        pytest.raises(ExhaustedError),
    ):
        client.get("/status", 100)
    assert len(asked) == 1
    assert time.monotonic() - began < 2
