"""Segments that the cards of `tests.boot.cards` are plugged into."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.net.segment import Segment


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[Segment]:
    made = Segment("lan", tmp_path, 0)
    yield made
    made.switch.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Segment]:
    made = Segment("other", tmp_path, 1)
    yield made
    made.switch.close()
