"""The command line as one language: one word one meaning, --json everywhere, one prefix, --version."""

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import click
import msgspec
import pytest

from phase.cli import _tell, facts
from phase.cli._options import Option
from tests.generated import words

OPTIONS = words.options()
#: What has its own output: a module's, marks of a boot, or nothing.
SILENT = {("run",)}


def phase(
    *arguments: object, cwd: Path | None = None, more: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "phase", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=90,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])} | (more or {}),
    )


def test_one_word_means_one_thing_wherever_it_stands() -> None:
    """The same kind of value with the same name and unit, where a file or a variable may give it.

    `--output` is a directory that `fetch` fills, and one file of a job: that is for the command line alone.
    """
    meanings: dict[str, set[tuple[str, str, str]]] = {}
    for several in OPTIONS.values():
        for each in several:
            if each.once:
                continue
            kind = type(each.type).__name__
            meanings.setdefault(each.word, set()).add((kind, each.metavar or "", each.unit))
    assert {word: found for word, found in meanings.items() if len(found) > 1} == {}


def test_every_option_says_what_it_is_and_what_holds_without_it() -> None:
    for place, several in OPTIONS.items():
        context = click.Context(click.Command("x"), show_default=True)
        for each in several:
            assert each.help, (place, each.word)
            assert each.help.endswith("."), (place, each.word)
            if each.is_flag or each.required or not isinstance(each.type, click.types._NumberRangeBase):
                continue
            if each.word != "ahead":
                assert "default" in each.get_help_extra(context), (place, each.word)


def test_every_command_that_prints_facts_prints_json() -> None:
    without = {place for place, several in OPTIONS.items() if "json" not in {each.word for each in several}}
    assert without == SILENT


def test_every_option_can_be_configured_or_says_that_it_cannot() -> None:
    """An option that is not one of ours would be missed by files and variables."""
    from phase.cli import COMMANDS
    from phase.cli.config import walk

    for name in COMMANDS:
        for place, found in walk(name):
            for each in found.params:
                assert isinstance(each, (Option, click.Argument)), (place, each.name)


@pytest.mark.parametrize("words", [("--version",), ("version",)])
def test_the_version_says_what_it_is_made_of(words: tuple[str, ...]) -> None:
    done = phase(*words)
    assert done.returncode == 0
    commit = r"( \(commit [0-9a-f]{12}(-dirty)?\))?"
    engine = re.escape(metadata.version("wasmtime"))
    assert re.fullmatch(rf"phase \S+{commit}, wasmtime {engine}, Python 3\.\d+\.\d+\n", done.stdout)


def test_the_version_as_json() -> None:
    found = msgspec.json.decode(phase("version", "--json").stdout, type=facts.Version)
    assert found.engine == metadata.version("wasmtime")


@pytest.mark.parametrize("words", [(), ("run",), ("release",), ("release", "add"), ("config", "show")])
def test_help_is_h_everywhere(words: tuple[str, ...]) -> None:
    done = phase(*words, "-h")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: phase")
    assert "\\b" not in done.stdout


def test_completion_knows_commands_and_options() -> None:
    def completed(words: str, number: int) -> set[str]:
        more = {"_PHASE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(number)}
        return set(phase(more=more).stdout.split())

    assert "plain,serve" in completed("phase se", 1)
    assert "plain,--artifacts" in completed("phase serve --ar", 2)
    assert "complete" in phase(more={"_PHASE_COMPLETE": "bash_source"}).stdout


def test_a_question_ends_with_its_own_mark() -> None:
    assert "Did you mean --keys? See `phase release refresh --help`." in phase(
        "release", "refresh", "r", "--kyes", "k"
    ).stderr.replace("'", "")


@pytest.mark.parametrize(
    "words",
    [
        ("nothing",),
        ("serve", "--prot", "1"),
        ("serve",),
        ("receipt", "verify", "absent", "--key", "0"),
        ("release", "show", "absent"),
        ("release", "key", "root.json", "--role", "targets"),
        ("run", "absent.wasm"),
        ("run", "--fule", "1", "absent.wasm"),
        ("verify", ".", "--root", "absent"),
        ("fetch", "--root", "absent", "--output", "out", "--provider", "ftp://x"),
        ("--config", "absent", "init"),
        ("config", "show", "nothing"),
    ],
)
def test_every_message_has_one_prefix(words: tuple[str, ...], tmp_path: Path) -> None:
    done = phase(*words, cwd=tmp_path)
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr
    assert all(line.startswith("phase: ") for line in done.stderr.splitlines()), done.stderr
    assert not any(line.startswith("phase: phase") for line in done.stderr.splitlines())


def test_output_that_is_lost_after_the_work_is_told(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "phase", "release", "key", "root-1.json", "--role", "root", "--plain"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
            timeout=60,
        )
    assert done.returncode == _tell.UNTOLD
    public = (tmp_path / "root-1.pub").read_text().split()[2]
    assert done.stderr.startswith("phase: it is done, but standard output cannot be written: No space left")
    assert f"root {public}" in done.stderr


def test_output_that_is_lost_before_the_work_is_a_failure(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "phase", "version"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    assert done.stderr == "phase: standard output cannot be written: No space left on device\n"


def test_json_is_one_object_and_nothing_else(tmp_path: Path) -> None:
    """Each says what `facts` documents."""
    made = phase("release", "init", "repo", "--new-keys", "keys", "--plain", "--json", cwd=tmp_path)
    change = msgspec.json.decode(made.stdout, type=facts.Change)
    assert set(change.published) == {"root", "targets"}
    expected = {
        ("show", "repo"): facts.Shown,
        ("status", "repo"): facts.Status,
        ("verify", "repo"): facts.VerifiedRepository,
        ("prune", "repo"): facts.Pruned,
        ("export", "repo", "public"): facts.Exported,
        ("sign", "repo"): facts.Change,
        ("discard", "repo"): facts.Change,
        ("refresh", "repo", "--keys", "keys"): facts.Change,
        ("renew", "repo", "targets", "--keys", "keys"): facts.Change,
        ("restore", "repo", "--ahead", "5", "--keys", "keys"): facts.Change,
        ("key", "new/root-9.json", "--role", "root", "--plain"): facts.Key,
    }
    for line, kind in expected.items():
        done = phase("release", *line, "--json", cwd=tmp_path)
        assert done.returncode == 0, (line, done.stderr)
        msgspec.json.decode(done.stdout, type=kind)
        assert len(done.stdout.splitlines()) == 1
    node = phase("init", "--state", "state", "--json", cwd=tmp_path)
    msgspec.json.decode(node.stdout, type=facts.Node)
    settings = phase("config", "show", "--json", cwd=tmp_path)
    msgspec.json.decode(settings.stdout, type=facts.Settings)
    assert json.loads(settings.stdout)["settings"]
