import pytest

from phase.provider.ranges import Part, Unsatisfiable, Whole, not_modified, precondition_failed, select

TAG = "sha256-ab"


@pytest.mark.parametrize(
    ("asked", "choice"),
    [
        (None, Whole()),
        ("bytes=0-0", Part(0, 1)),
        ("bytes=2-4", Part(2, 3)),
        ("bytes=2-", Part(2, 8)),
        ("bytes=0-", Part(0, 10)),
        ("bytes=8-99999999999", Part(8, 2)),
        ("bytes=-3", Part(7, 3)),
        ("bytes=-99", Part(0, 10)),
        ("bytes=-0", Unsatisfiable()),
        ("bytes=10-", Unsatisfiable()),
        ("bytes=10-11", Unsatisfiable()),
        ("bytes=4-2", Whole()),
        ("bytes=-", Whole()),
        ("bytes=0-1,3-4", Whole()),
        ("bytes=a-b", Whole()),
        ("bytes=\u0661-", Whole()),
        ("bytes=" + "9" * 30 + "-", Whole()),
        ("lines=0-1", Whole()),
        ("", Whole()),
    ],
)
def test_selection(asked: str | None, choice: object) -> None:
    assert select(asked, None, TAG, 10) == choice


def test_an_empty_file_has_no_part() -> None:
    assert select("bytes=0-0", None, TAG, 0) == Unsatisfiable()
    assert select("bytes=-5", None, TAG, 0) == Unsatisfiable()


@pytest.mark.parametrize(
    ("if_range", "part"),
    [
        ('"sha256-ab"', True),
        ('W/"sha256-ab"', False),
        ('"sha256-cd"', False),
        ("sha256-ab", False),
        ("Wed, 21 Oct 2015 07:28:00 GMT", False),
    ],
)
def test_if_range(if_range: str, part: bool) -> None:
    assert isinstance(select("bytes=0-1", if_range, TAG, 10), Part) is part


@pytest.mark.parametrize(
    ("field", "same"),
    [
        (None, False),
        ('"sha256-ab"', True),
        ('W/"sha256-ab"', True),
        ('"x", "sha256-ab"', True),
        ("*", True),
        ('"x"', False),
        ("sha256-ab", False),
        ('"x-sha256-ab-x"', False),
    ],
)
def test_if_none_match(field: str | None, same: bool) -> None:
    assert not_modified(field, TAG) is same


@pytest.mark.parametrize(
    ("field", "failed"),
    [(None, False), ("*", False), ('"sha256-ab"', False), ('W/"sha256-ab"', True), ('"x"', True)],
)
def test_if_match(field: str | None, failed: bool) -> None:
    assert precondition_failed(field, TAG) is failed
