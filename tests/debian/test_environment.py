"""What the Debian package takes from Debian fits what its wheels ask for."""

import runpy
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[2]
ENVIRONMENT = runpy.run_path(str(PROJECT / "debian/environment.py"))
#: What Debian 12 has. It does not change any more.
DEBIAN_12 = {
    "attrs": "22.2.0",
    "frozenlist": "1.3.3",
    "idna": "3.3",
    "multidict": "6.0.4",
    "pycparser": "2.21",
    "typing-extensions": "4.4.0",
}


def requirements() -> dict[str, list[Requirement]]:
    """What Phase asks for, and what that asks for, by the name of what is asked."""
    asked: dict[str, list[Requirement]] = {}
    seen = set[str]()
    # From the file: the environment may have been made before the file changed.
    todo: list[str] = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    while todo:
        each = Requirement(todo.pop())
        if each.marker is not None and not each.marker.evaluate({"extra": ""}):
            continue
        name = canonicalize_name(each.name)
        asked.setdefault(name, []).append(each)
        if name not in seen:
            seen.add(name)
            todo += metadata.requires(name) or []
    return asked


@pytest.mark.parametrize("name", ENVIRONMENT["LIBRARIES"])
def test_debians_version_is_new_enough(name: str) -> None:
    """Each library that comes from Debian satisfies every requirement of it."""
    asked = requirements()[canonicalize_name(name)]
    version = DEBIAN_12[canonicalize_name(name)]
    assert [str(each) for each in asked if version not in each.specifier] == []


def test_a_version_that_is_too_old_would_be_noticed() -> None:
    """One of Debian 12's is too old, and therefore comes as a wheel."""
    asked = requirements()["typing-extensions"]
    assert any(DEBIAN_12["typing-extensions"] not in each.specifier for each in asked)
