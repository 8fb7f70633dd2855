import pytest

from lab.errors import ProductError


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("a\x1b[2J\x1b[1;31mb", "ab"),
        ("a\x1b]0;title\x07b", "ab"),
        ("a\x1b]52;c;ZXZpbA==\x1b\\b", "ab"),
        ("a\x9b31mb", "a31mb"),
        ("a\x9d0;title\x9cb", "a0;titleb"),
        ("a\u202egnp.exe\u2066b", "agnp.exeb"),
        ("a\r\nb\tc\bd", "a\nb\tcd"),
        ("gr\u00fcn", "gr\u00fcn"),
    ],
)
def test_what_steers_a_terminal_stays_out(said: str, left: str) -> None:
    """The output of a command arrives encoded, past the console: an escape in it is still one."""
    error = ProductError(said, evidence=said)
    assert (error.what, error.evidence, str(error)) == (left, left, f"{left}\n{left}")
