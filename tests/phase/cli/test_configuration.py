"""The configuration: which source counts, and what a file may hold."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from phase.cli import _configuration, cli
from phase.errors import PhaseError


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's and the user's file are in a directory of the test's; no variable is set."""
    for name in list(os.environ):
        if name.startswith("PHASE_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(_configuration, "SYSTEM", tmp_path / "system.toml")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    (tmp_path / "home/phase").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)


SYSTEM, USER, GIVEN = "system.toml", "home/phase/phase.toml", "given.toml"


def invoke(*words: str) -> Result:
    return CliRunner().invoke(cli, list(words))


def shown(command: str, option: str, *before: str) -> tuple[Any, str]:
    """Value and source of an option."""
    done = invoke(*before, "config", "show", command.split()[0], "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    (found,) = (
        each
        for each in json.loads(done.stdout)["settings"]
        if (each["command"], each["option"]) == (command, option)
    )
    return found["value"], found["source"]


def refused(text: str, *words: str) -> str:
    """Why a file is refused."""
    Path(GIVEN).write_text(text)
    done = invoke("--config", GIVEN, *(words or ("init",)))
    assert isinstance(done.exception, PhaseError), (done.output, done.exception)
    return str(done.exception)


def test_each_source_counts_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Added one at a time, from the farthest to the nearest."""
    assert shown("serve", "--port") == (8080, "default")
    Path(SYSTEM).write_text("port = 1\n")
    assert shown("serve", "--port") == ("1", f"{tmp_path}/system.toml")
    Path(SYSTEM).write_text("port = 1\n[serve]\nport = 2\n")
    assert shown("serve", "--port") == ("2", f"{tmp_path}/system.toml [serve]")
    Path(USER).write_text("port = 3\n")
    assert shown("serve", "--port") == ("3", f"{tmp_path}/{USER}")
    Path(GIVEN).write_text("[serve]\nport = 4\n")
    assert shown("serve", "--port", "--config", GIVEN) == ("4", f"{GIVEN} [serve]")
    monkeypatch.setenv("PHASE_CONFIG", GIVEN)
    assert shown("serve", "--port") == ("4", f"{GIVEN} [serve]")
    monkeypatch.setenv("PHASE_PORT", "5")
    assert shown("serve", "--port") == ("5", "PHASE_PORT")
    monkeypatch.setenv("PHASE_SERVE_PORT", "6")
    assert shown("serve", "--port") == ("6", "PHASE_SERVE_PORT")


def test_the_command_line_counts_before_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(SYSTEM).write_text(f'state = "{tmp_path}/file"\n')
    node = json.loads(invoke("init", "--json").stdout)
    assert node["identity"] == f"{tmp_path}/file/identity.json"
    monkeypatch.setenv("PHASE_STATE", f"{tmp_path}/variable")
    assert json.loads(invoke("init", "--json").stdout)["identity"] == f"{tmp_path}/variable/identity.json"
    monkeypatch.setenv("PHASE_INIT_STATE", f"{tmp_path}/nearer")
    assert json.loads(invoke("init", "--json").stdout)["identity"] == f"{tmp_path}/nearer/identity.json"
    words = ("init", "--json", "--state", f"{tmp_path}/line")
    assert json.loads(invoke(*words).stdout)["identity"] == f"{tmp_path}/line/identity.json"


def test_a_relative_path_counts_from_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the owner of the directory where a command runs would choose the root that is trusted."""
    Path(USER).write_text('[fetch]\nroot = "root.json"\n')
    Path(SYSTEM).write_text(f'[release]\nkeys = ["one", "{tmp_path}"]\n')
    (tmp_path / "home/phase/root.json").touch()
    for name in ("one", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert shown("fetch", "--root")[0] == str(tmp_path / "home/phase/root.json")
    assert shown("release refresh", "--keys")[0] == [str(tmp_path / "one"), str(tmp_path)]


def test_an_option_that_must_be_given_may_be_in_a_file(tmp_path: Path) -> None:
    assert invoke("verify", str(tmp_path)).exit_code == 2
    Path(USER).write_text(f'root = "{tmp_path}/absent"\n')
    assert "the trusted root" in str(invoke("verify", str(tmp_path)).exception)


def test_lists_flags_and_tables_of_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(SYSTEM).write_text(
        '[serve]\nbind = ["192.0.2.1", "192.0.2.2"]\nno-dht = true\n[release]\ncost = "interactive"\n'
        "[release.add]\ndays = 90\n"
    )
    assert shown("serve", "--bind") == (["192.0.2.1", "192.0.2.2"], f"{tmp_path}/system.toml [serve]")
    assert shown("serve", "--no-dht") == (True, f"{tmp_path}/system.toml [serve]")
    assert shown("release init", "--cost") == ("interactive", f"{tmp_path}/system.toml [release]")
    assert shown("release add", "--days") == ("90", f"{tmp_path}/system.toml [release.add]")
    assert shown("run", "--memory") == ("256 MiB", "default")
    monkeypatch.setenv("PHASE_RELEASE_COST", "moderate")
    assert shown("release key", "--cost") == ("moderate", "PHASE_RELEASE_COST")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("chanel = 'x'", "there is no option 'chanel'. Did you mean channel?"),
        ("[sevre]\nport = 1", "there is no option 'sevre'. Did you mean serve?"),
        ("[serve]\nportt = 1", "[serve]: there is no option 'portt'. Did you mean port?"),
        ("[serve]\ndays = 1", "[serve]: there is no option 'days'."),
        ("[release.ad]\ndays = 1", "[release]: there is no option 'ad'. Did you mean add?"),
        ("serve = 1", "serve is a table of a command, not an option"),
        ("[port]\nx = 1", "port is an option, not a table"),
        ("yes = true", "--yes is for the command line alone"),
        ("[release.add]\nforce = true", "--force is for the command line alone"),
        ("zzzzzzzz = 1", "there is no option 'zzzzzzzz'. See `phase config show`."),
        ("'\\u001b[31m' = 1", "there is no option"),
        ("port = ", "given.toml is not TOML"),
        ("port = 1\nport = 2", "given.toml is not TOML"),
        ("x = " + "[" * 20_000, "is not TOML: it is nested too deeply"),
        ("x = " + "1" * 20_000, "is not TOML"),
        ("#" * 65_537, "is too long; the limit is 65536 bytes"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_name(text: str, says: str) -> None:
    error = refused(text)
    assert GIVEN in error
    assert says in error


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("port = 'many'", "'many' is not a valid integer"),
        ("port = 1.5", "'1.5' is not a valid integer"),
        ("port = 99999", "99999 is not in the range"),
        ("port = true", "True is not a text or a number"),
        ("port = [1]", "[1] is not a text or a number"),
        ("port = 2027-01-01", "is not a text or a number"),
        ("bind = '192.0.2.1'", "'192.0.2.1' is not a list"),
        ("no-dht = 'yes'", "'yes' is neither true nor false"),
        ("no-dht = 1", "1 is neither true nor false"),
    ],
)
def test_a_value_that_cannot_be_used_says_where_it_is(text: str, says: str) -> None:
    Path(SYSTEM).write_text(f"[serve]\n{text}\n")
    done = invoke("serve", "--artifacts", ".")
    assert done.exit_code == 2
    assert says in done.output
    assert f"({_configuration.SYSTEM} [serve])" in done.output
    shown = invoke("config", "show", "serve")
    assert shown.exit_code == 1
    assert says in shown.stdout


def test_a_variable_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHASE_SERVE_PORT", "x")
    done = invoke("serve", "--artifacts", ".")
    assert done.exit_code == 2
    assert "'x' is not a valid integer range (PHASE_SERVE_PORT)" in done.output


def test_a_variable_that_is_empty_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHASE_SERVE_PORT", "")
    assert shown("serve", "--port") == (8080, "default")


def test_what_is_for_the_command_line_alone_is_not_taken_from_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PHASE_YES", "1")
    monkeypatch.setenv("PHASE_RELEASE_DISCARD_YES", "1")
    found: list[bool] = []
    command = click.Command("discard", params=[_yes()], callback=lambda yes: found.append(yes))
    assert CliRunner().invoke(command, []).exit_code == 0
    assert found == [False]


def _yes() -> click.Parameter:
    from phase.cli._ceremony import discard

    return next(each for each in discard.params if each.name == "yes")


@pytest.mark.parametrize("kind", ["absent", "directory", "fifo", "link to nothing"])
@pytest.mark.timeout(30)
def test_a_file_that_cannot_be_read_is_named(kind: str) -> None:
    if kind == "directory":
        Path(GIVEN).mkdir()
    elif kind == "fifo":
        os.mkfifo(GIVEN)
    elif kind == "link to nothing":
        Path(GIVEN).symlink_to("nothing")
    error = invoke("--config", GIVEN, "init").exception
    assert isinstance(error, PhaseError)
    assert "the configuration given.toml cannot be read: " in str(error)


def test_only_the_user_s_file_may_be_hidden(tmp_path: Path) -> None:
    """The system's may say on which address to serve: without it, that would be every address."""
    program = (
        "import os, pathlib, sys; from phase.cli import _configuration, _given\n"
        "os.geteuid() or os.setresuid(65534, 65534, 65534)\n"
        "_configuration.SYSTEM = pathlib.Path('etc/phase.toml')\n"
        "try:\n    print(len(_configuration.load().files))\n"
        "except _configuration.ConfigurationError as error:\n    print(error)\n"
    )

    def said() -> str:
        words = [sys.executable, "-c", program]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    tmp_path.chmod(0o755)
    Path(USER).write_text("port = 1\n")
    Path("home").chmod(0)
    assert said() == "0"
    Path("etc").mkdir(mode=0)
    assert said() == "etc/phase.toml cannot be read: Permission denied"


def test_a_pipe_is_read_as_it_is_written() -> None:
    os.mkfifo(GIVEN)

    def write() -> None:
        with open(GIVEN, "w") as file:
            file.write("[serve]\n")
            file.flush()
            file.write("port = 7\n")

    thread = threading.Thread(target=write)
    thread.start()
    assert shown("serve", "--port", "--config", GIVEN) == ("7", f"{GIVEN} [serve]")
    thread.join(10)


def test_the_page_shows_what_its_file_says(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs/reference.md").read_text()
    text = page.partition("```toml\n")[2].partition("```")[0].replace("/srv/phase", str(tmp_path))
    Path(SYSTEM).write_text(text)
    lines = page.partition("$ phase config show serve\n")[2].partition("```")[0].splitlines()
    said = invoke("config", "show", "serve").output.replace(f"{tmp_path}/{SYSTEM}", "/etc/phase/phase.toml")
    said = said.replace(str(tmp_path), "/srv/phase")
    expected = [line for line in lines if line != "..."]
    assert len(expected) == 4
    assert [line for line in said.splitlines() if line in expected] == expected


def test_run_has_codes_of_its_own_for_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 and 2 may be the module's."""
    Path(SYSTEM).write_text("[run]\nmemry = 1\n")
    assert invoke("run", "x.wasm").exit_code == 128
    Path(SYSTEM).write_text("[run]\nmemory = 'x'\n")
    assert invoke("run", "x.wasm").exit_code == 129
