"""The script that reads the mode for other scripts, against the parser that reads it for all else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phase import cmdline
from tests.boot.scripts import reads

_WORDS = st.sampled_from(
    [
        "phase.mode=internet", "phase.mode=local", "phase.mode=private", "phase.mode=", "phase.mode",
        "phase.mode=Local", "PHASE.Mode=local", '"phase.mode=local"', 'phase.mode="private"', "quiet", "*",
        '"phase.mode=internet x"', 'x="a phase.mode=local b"', "xphase.mode=internet", "phase.modes=local",
        'ph"ase.mode=private"', 'dyndbg="file x +p"', "phase.mode=local=x", '""', "a=phase.mode=internet",
    ]
)  # fmt: skip


@pytest.mark.parametrize(
    ("line", "mode"),
    [
        ("", "internet"),
        ("quiet phase.mode=local panic=-1", "local"),
        ("phase.mode=private phase.mode=internet", "internet"),
        ("phase.mode=Local", "private"),
        ('"PHASE.MODE=local"', "local"),
        ('phase.mode="local"', "local"),
    ],
)
def test_as_it_is_written(line: str, mode: str) -> None:
    assert reads("mode", line) == cmdline.parse(line).mode == mode


@settings(max_examples=40, deadline=None)
@given(st.lists(_WORDS, max_size=4).map(" ".join))
def test_the_script_finds_what_the_parser_finds(line: str) -> None:
    assert reads("mode", line) == cmdline.parse(line).mode
