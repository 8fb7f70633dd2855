"""The list of mutants that live with a reason is right, and fits the code."""

from pathlib import Path

import pytest

from tests.mutation.__main__ import figure
from tests.mutation.areas import AREAS, chosen
from tests.mutation.survivors import Excuse, listed, stale

PROJECT = Path(__file__).resolve().parents[2]
EXCUSE = Excuse("phase/x.py", "f", "a < b", "a <= b", "equal is impossible")
MUTANT = {"file": "phase/x.py", "function": "f", "was": "a < b", "becomes": "a <= b", "fate": "survived"}


@pytest.mark.parametrize("excuse", listed(), ids=lambda excuse: f"{excuse.file} {excuse.was}")
def test_the_code_it_speaks_of_is_there(excuse: Excuse) -> None:
    there = "".join((PROJECT / excuse.file).read_text().split())
    assert "".join(excuse.was.split()) in there
    assert f"def{excuse.function.rpartition('.')[2]}(" in there


def test_an_entry_fits_its_mutant_alone() -> None:
    assert EXCUSE.fits(MUTANT)
    for field in ("file", "function", "was", "becomes"):
        assert not EXCUSE.fits(MUTANT | {field: "other"})
    assert EXCUSE._replace(becomes="*").fits(MUTANT | {"becomes": "other"})


def test_an_entry_without_a_living_mutant_is_stale() -> None:
    assert stale([EXCUSE], [MUTANT]) == []
    assert stale([EXCUSE], []) == [EXCUSE]


@pytest.mark.parametrize("change", ['reason = ""', "", 'reason = "x"\nmore = "y"'])
def test_an_entry_needs_its_fields(tmp_path: Path, change: str) -> None:
    path = tmp_path / "list.toml"
    path.write_text(f'[[survivor]]\nfile = "a"\nfunction = "f"\nwas = "a"\nbecomes = "b"\n{change}\n')
    with pytest.raises(ValueError, match="needs a text"):
        listed(path)


def test_an_entry_is_there_once(tmp_path: Path) -> None:
    path = tmp_path / "list.toml"
    entry = '[[survivor]]\nfile = "a"\nfunction = "f"\nwas = "a"\nbecomes = "b"\nreason = "x"\n'
    path.write_text(entry * 2)
    with pytest.raises(ValueError, match="twice: a"):
        listed(path)


def test_a_mutant_that_no_test_reaches_is_not_killed() -> None:
    fates = ["killed", "killed", "timeout", "survived", "no tests"]
    found = figure([MUTANT | {"fate": fate} for fate in fates], [EXCUSE])
    assert found == (5, 3, 1, 1, 2)
    assert found.percent == 60.0


def test_each_area_has_its_code_and_its_tests() -> None:
    for area in AREAS:
        assert (PROJECT / area.source).exists(), area.source
        for path, _, name in (test.partition("::") for test in area.tests):
            assert (PROJECT / path).exists()
            assert not name or f"def {name}(" in (PROJECT / path).read_text()


def test_a_part_that_is_not_listed_is_named() -> None:
    assert [area.source for area in chosen(["phase/trust/"])] == ["phase/trust"]
    with pytest.raises(ValueError, match="phase/nothing: unknown"):
        chosen(["phase/nothing"])
