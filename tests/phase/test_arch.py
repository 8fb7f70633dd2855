"""Every usual name of an architecture means one of two."""

import os

import pytest

from phase import arch


@pytest.mark.parametrize("name", ["x86_64", "amd64", "X86-64", " AMD64 "])
def test_names_of_x86_64(name: str) -> None:
    assert arch.canonical(name) == "x86_64"


@pytest.mark.parametrize("name", ["arm64", "aarch64", "AArch64"])
def test_names_of_arm64(name: str) -> None:
    assert arch.canonical(name) == "arm64"


@pytest.mark.parametrize("name", ["", "x86", "riscv64", "arm64/../x86_64"])
def test_an_unknown_name_is_refused_and_the_known_are_named(name: str) -> None:
    with pytest.raises(arch.ArchError, match=r"x86_64, arm64"):
        arch.canonical(name)


def test_auto_is_this_machine() -> None:
    assert arch.canonical("auto") == arch.host() == arch.canonical(os.uname().machine)
