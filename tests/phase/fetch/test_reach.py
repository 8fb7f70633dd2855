"""Why a provider is not reached, in words whose hint fits the cause."""

import errno
import os
import socket

import pytest

from phase.fetch.reach import Segments, explained


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENETUNREACH, "no route there"),
        (errno.EHOSTUNREACH, "switched on"),
        (errno.ECONNREFUSED, "`phase serve` running"),
    ],
)
def test_the_hint_fits_the_cause(number: int, hint: str) -> None:
    why, told = explained(OSError(number, os.strerror(number)), "192.0.2.1")
    assert why == os.strerror(number)
    assert hint in told


def test_a_name_without_an_address_is_said_to_be_one() -> None:
    why, hint = explained(socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "boot.example")
    assert why == "boot.example has no address: Name or service not known"
    assert "name servers" in hint
    assert explained(socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), "boot.example") == (
        "no name server answers for boot.example",
        hint,
    )


def test_what_no_number_belongs_to_is_told_as_it_is() -> None:
    assert explained(ValueError("label too long"), "x") == ("label too long", "")
    assert explained(TimeoutError(), "x")[1] == ""


def test_hosts_that_stall_are_remembered_within_a_bound() -> None:
    segments = Segments()
    for number in range(200):
        segments.stalled(f"host{number}")
    assert len(segments._stalls) == 64
    for _ in range(9):
        segments.stalled("host0")
    with socket.socket() as connection:
        segments.ask(connection, "host0")
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) == 536
