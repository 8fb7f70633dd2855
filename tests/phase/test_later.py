"""Modules that are loaded when they are used."""

import subprocess
import sys


def run(program: str) -> list[str]:
    """The lines that a program prints, in an interpreter that has loaded little."""
    command = [sys.executable, "-S", "-P", "-c", program]
    env = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.splitlines()


def test_an_import_loads_nothing_until_the_module_is_used() -> None:
    program = (
        "import sys; from phase.later import load_later; load_later('inspect', 'textwrap')\n"
        "import inspect, textwrap\n"
        "print('ast' in sys.modules)\n"
        "print(inspect.isclass(int), 'ast' in sys.modules)\n"
        "print(textwrap.dedent('  a'), inspect is sys.modules['inspect'])\n"
    )
    assert run(program) == ["False", "True True", "a True"]


def test_other_modules_are_loaded_as_ever() -> None:
    program = (
        "import sys; from phase.later import load_later; load_later('inspect')\n"
        "import textwrap\n"
        "print(type(textwrap).__name__, 're' in sys.modules)\n"
        "try:\n    import surely.not_there\n"
        "except ModuleNotFoundError as error:\n    print(error.name)\n"
    )
    assert run(program) == ["module True", "surely"]


def test_what_is_taken_by_name_is_used_at_once() -> None:
    program = (
        "import sys; from phase.later import load_later; load_later('textwrap')\n"
        "from textwrap import dedent\n"
        "print(dedent('  b'))\n"
    )
    assert run(program) == ["b"]
