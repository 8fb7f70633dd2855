import importlib
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from phase.cli import COMMANDS, cli, printable


@pytest.mark.parametrize("name", COMMANDS)
def test_every_listed_command_is_there(name: str) -> None:
    found = importlib.import_module(COMMANDS[name][0]).command
    assert isinstance(found, click.Command)
    assert found.name == name
    assert CliRunner().invoke(cli, [name, "--help"]).exit_code == 0


def test_help_imports_no_command() -> None:
    code = (
        "import sys; from phase.cli import main\n"
        "try: main()\n"
        "except SystemExit as e: assert e.code == 0\n"
        "print([m for m in sys.modules if m.startswith('phase.cli.') and m != 'phase.cli._tell'"
        " or m in ('aiohttp', 'tuf', 'nacl')])"
    )
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)
    assert "Serve releases" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_seed_path_stays_light() -> None:
    code = (
        "import sys, phase.fetch, phase.discovery\n"
        "print([m for m in ('ssl', 'email', 'http', 'asyncio', 'zeroconf', 'aiohttp', 'click', 'tuf')"
        " if m in sys.modules])"
    )
    # -S: what the environment's own start-up files import is not ours.
    path = f"import sys; sys.path[:0] = {[p for p in sys.path if p]!r}\n"
    done = subprocess.run(
        [sys.executable, "-S", "-c", path + code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_usage_is_2() -> None:
    assert CliRunner().invoke(cli, ["nothing"]).exit_code == 2
    assert CliRunner().invoke(cli, ["serve", "--port", "x"]).exit_code == 2


def test_terminal_control_is_taken_out() -> None:
    assert printable("a\x1b[2J\nb\u202e") == "a [2J b "
