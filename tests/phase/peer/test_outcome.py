"""What peers tell each other of the end of a connection."""

import pytest

from phase.peer import outcome
from phase.peer.errors import ConnectionLostError, RefusedError
from phase.peer.transport import MAX_REASON, Code


@pytest.mark.parametrize("code", [Code.REFUSED, Code.BUSY])
def test_a_refusal_is_told_from_an_end(code: Code) -> None:
    found = outcome.over(code, " no room ")
    assert isinstance(found, RefusedError)
    assert (found.what, found.code) == ("the peer refused: no room", code)
    assert outcome.over(code, "").what == f"the peer refused: {code.name.lower()}"


def test_an_end_may_have_a_reason() -> None:
    assert isinstance(outcome.over(Code.DONE, ""), ConnectionLostError)
    assert outcome.over(Code.DONE, "").what == "the peer closed the connection"
    assert outcome.over(99, "bye").what == "the peer closed the connection: bye"


def test_words_of_a_peer_cannot_act_on_a_terminal_and_are_bounded() -> None:
    said = outcome.over(Code.DONE, "\x1b[2J" + "x" * 2 * MAX_REASON).what
    assert said.isprintable()
    assert len(said) <= len("the peer closed the connection: ") + MAX_REASON


def test_a_reason_is_cut_between_characters() -> None:
    """The peer must be able to read it: a half of one is no UTF-8."""
    assert outcome.cut("no") == b"no"
    assert outcome.cut("x" * 2 * MAX_REASON) == b"x" * MAX_REASON
    cut = outcome.cut("x" + "\N{GRINNING FACE}" * MAX_REASON)
    assert MAX_REASON - 4 < len(cut) <= MAX_REASON
    assert set(cut.decode()) == {"x", "\N{GRINNING FACE}"}
    assert outcome.cut("a\udcffb") == b"a?b"
