"""phase/cli/_words.py: the words of a configuration file, for commands that were not imported."""

from phase.cli import COMMANDS
from phase.cli._options import Option
from phase.cli.config import walk


def options() -> dict[tuple[str, ...], list[Option]]:
    """The options of each command."""
    return {
        place: [each for each in found.params if isinstance(each, Option)]
        for name in COMMANDS
        for place, found in walk(name)
    }


def render() -> str:
    """The file."""
    lines = [
        '"""The words of a configuration file. Made by `python -m tests.generated`."""',
        "",
        "#: By command, what a file may hold.",
        "COMMANDS: dict[tuple[str, ...], tuple[str, ...]] = {",
    ]
    every = options()
    for place, found in every.items():
        words = sorted(each.word for each in found if not each.once)
        if words:
            inner = "".join(f'        "{word}",\n' for word in words)
            several = f"(\n{inner}    )" if len(words) > 1 else f'("{words[0]}",)'
            lines.append(f"    ({_tuple(place)}): {several},")
    typed = {each.word for several in every.values() for each in several if each.once}
    kept = {each.word for several in every.values() for each in several if not each.once}
    lines += ["}", "#: What is for the command line alone.", "TYPED = ("]
    lines += [*(f'    "{word}",' for word in sorted(typed - kept)), ")", ""]
    return "\n".join(lines)


def _tuple(place: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in place) + ("," if len(place) == 1 else "")
