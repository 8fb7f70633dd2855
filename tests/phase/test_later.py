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


def test_threads_that_ask_at_once_all_get_the_whole_module() -> None:
    """One of them loads it. With the interpreter's own lazy loader, the others find half of it."""
    program = (
        "import sys, time; from threading import Thread; from phase.later import load_later\n"
        "load_later('fractions')\n"
        "class Slow:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'decimal':\n            time.sleep(0.5)\n"
        "sys.meta_path.insert(0, Slow())\n"
        "import fractions\n"
        "assert 'decimal' not in sys.modules\n"
        "def ask(): print(fractions.Fraction(1, 2))\n"
        "threads = [Thread(target=ask) for _ in range(3)]\n"
        "[thread.start() for thread in threads]\n"
        "[thread.join() for thread in threads]\n"
    )
    assert run(program) == ["1/2"] * 3
