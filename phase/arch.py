"""Canonical names of processor architectures; every alias is mapped once, at the edge."""

import os

from phase.errors import PhaseError

ARCHES = ("x86_64", "arm64")
_ALIASES = {
    "x86_64": "x86_64",
    "x86-64": "x86_64",
    "amd64": "x86_64",
    "x64": "x86_64",
    "arm64": "arm64",
    "aarch64": "arm64",
    "armv8": "arm64",
    "armv8l": "arm64",
}


class ArchError(PhaseError):
    """The name is not of an architecture that Phase boots."""


def canonical(name: str) -> str:
    """Map any usual name of an architecture to Phase's own.

    Args:
        name: for example `amd64`, `x86-64`, `aarch64`; `auto` means this machine.

    Returns:
        `x86_64` or `arm64`.

    Raises:
        ArchError: Phase does not know it.
    """
    folded = name.strip().lower()
    if folded == "auto":
        return host()
    try:
        return _ALIASES[folded]
    except KeyError:
        hint = f"Use one of {', '.join(ARCHES)}."
        raise ArchError(f"unknown architecture {name[:40]!r}", hint=hint) from None


def host() -> str:
    """The canonical name of this machine's architecture.

    Raises:
        ArchError: Phase does not boot this architecture.
    """
    return canonical(os.uname().machine)
