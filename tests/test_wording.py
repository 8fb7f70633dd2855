"""Two habits of the project that a reader pays for, looked for in its own source."""

import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: Packages whose comments, docstrings and messages have been gone through; add a package, take none out.
PLAIN = (
    "boot",
    "phase/discovery",
    "phase/fetch",
    "phase/jobs",
    "phase/provider",
    "phase/release",
    "phase/trust",
)
_RIDDLE = re.compile(r"(?<!here )\bis no\b(?! longer)|\bis none\b|\b[Ww]hoever\b|\b[Nn]obody\b")
#: The name of an account.
_NAME = re.compile(r"`nobody`|nobody:x:65534")


@pytest.mark.parametrize("package", PLAIN)
def test_sentences_need_no_second_reading(package: str) -> None:
    """A sentence says "is not a", and names who or what it means."""
    found = []
    for path in sorted((ROOT / package).rglob("*.py")):
        with path.open("rb") as file:
            for token in tokenize.tokenize(file.readline):
                if token.type in (tokenize.COMMENT, tokenize.STRING):
                    text = _NAME.sub("", token.string)
                    found += [f"{path}:{token.start[0]}: {each[0]}" for each in _RIDDLE.finditer(text)]
    assert not found


def test_no_test_imports_another() -> None:
    """Helpers have modules of their own, so that a reader finds them and no test runs twice."""
    importing = re.compile(
        r"^from tests[\w.]*\.test_\w+ import|^from tests[\w.]* import test_", re.MULTILINE
    )
    found = {
        str(path.relative_to(ROOT))
        for folder in ("bench", "fixtures", "scenarios", "tests")
        for path in (ROOT / folder).rglob("*.py")
        if importing.search(path.read_text())
    }
    assert found <= {"tests/phase/boot/test_linux.py"}
