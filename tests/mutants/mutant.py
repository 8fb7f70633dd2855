"""One thing that can be missing."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """One build of the product with something missing.

    Attributes:
        name: of the missing thing.
        file: where.
        old: the text that does it.
        new: what stands there instead.
        killers: pytest's paths, and options, of the tests of which at least one must fail.
    """

    name: str
    file: str
    old: str
    new: str
    killers: tuple[str, ...]
