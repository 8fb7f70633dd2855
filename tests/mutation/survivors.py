"""The list of mutants that live for a reason: `survivors.toml`."""

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

LIST = Path(__file__).with_name("survivors.toml")


class Excuse(NamedTuple):
    """One entry.

    Attributes:
        file: where.
        function: name, with its class before it.
        was: the changed lines as they are, joined by a space.
        becomes: the same lines in the mutant; `*` stands for whatever mutmut makes of them.
        reason: why no test can or should notice.
    """

    file: str
    function: str
    was: str
    becomes: str
    reason: str

    def fits(self, mutant: dict[str, str]) -> bool:
        """Whether it speaks of this mutant."""
        same = (self.file, self.function, self.was) == (mutant["file"], mutant["function"], mutant["was"])
        return same and self.becomes in ("*", mutant["becomes"])


def listed(path: Path = LIST) -> list[Excuse]:
    """All entries.

    Raises:
        ValueError: an entry lacks something, or is there twice.
    """
    found: list[Excuse] = []
    for entry in tomllib.loads(path.read_text())["survivor"]:
        if set(entry) != set(Excuse._fields) or not all(isinstance(it, str) and it for it in entry.values()):
            raise ValueError(f"{path.name}: {entry} needs a text for each of {', '.join(Excuse._fields)}")
        found.append(Excuse(**entry))
    twice = {each for each in found if [other[:4] for other in found].count(each[:4]) > 1}
    if twice:
        raise ValueError(f"{path.name}: twice: {', '.join(sorted(each.was for each in twice))}")
    return found


def stale(excuses: Iterable[Excuse], alive: Iterable[dict[str, str]]) -> list[Excuse]:
    """The entries that speak of no mutant that lives: it is killed by now, or the code has changed."""
    living = list(alive)
    return [excuse for excuse in excuses if not any(excuse.fits(mutant) for mutant in living)]
