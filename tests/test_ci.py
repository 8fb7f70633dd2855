"""The CI of this repository (`.github/`, `.gitlab-ci.yml`): its commands exist, its shards are whole."""

import configparser
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
FILES = [*sorted((PROJECT / ".github/workflows").glob("*.yml")), PROJECT / ".gitlab-ci.yml"]
#: What stands for an architecture in each.
_ARCH = ("${{ matrix.arch }}", "$ARCH")
_COMMAND = re.compile(r"(?:make |tox run -e )\S.*")


def _commands(file: Path) -> list[str]:
    """The commands of a file that this repository has to know, one for each architecture."""
    found = []
    for line in file.read_text().splitlines():
        if line.lstrip().startswith("#") or "apt-get" in line:
            continue
        for command in _COMMAND.findall(line):
            named = any(each in command for each in _ARCH)
            for arch in ("x86_64", "arm64") if named else ("",):
                text = command
                for each in _ARCH:
                    text = text.replace(each, arch)
                found.append(text)
    return found


def _environments() -> set[str]:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(PROJECT / "tox.ini")
    names: set[str] = set()
    for section in tox.sections():
        # As in `testenv:lab-{x86_64,arm64}`.
        parts = re.split(r"\{(.*?)\}", section.removeprefix("testenv:"))
        choices = [part.split(",") if number % 2 else [part] for number, part in enumerate(parts)]
        names |= {"".join(chosen) for chosen in itertools.product(*choices)}
    return names


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_each_command_exists(file: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    commands = _commands(file)
    assert len(commands) >= 7
    for command in commands:
        tool, _, rest = command.partition(" ")
        if tool == "make":
            assert rest in targets, command
        else:
            name = re.fullmatch(r'run -e "?([\w-]+)"?(?: -- .*)?', rest.rstrip(" \\"))
            assert name is not None, command
            assert name[1] in _environments(), command


def test_both_run_the_same() -> None:
    first, second = ({each.partition(" --group ")[0] for each in _commands(file)} for file in FILES)
    assert first == second


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_there_is_a_job_for_each_shard(file: Path) -> None:
    text = file.read_text()
    # One shard's results must not replace another's.
    for option in ("lab-out", "alluredir"):
        found = re.search(rf'--{option}="([^"]*)"', text)
        assert found is not None
        assert "arch" in found[1].lower()
        assert "shard" in found[1].lower()
    (count,) = {int(each) for each in re.findall(r"--splits (\d+)", text)}
    listed = re.search(r"(?:shard|SHARD): \[(.*)\]", text)
    assert listed is not None
    assert [int(each.strip(' "')) for each in listed[1].split(",")] == [*range(1, count + 1)]


def test_the_shards_are_all_scenarios_once() -> None:
    whole = _collected()
    parts = [_collected("--splits", "2", "--group", str(number)) for number in (1, 2)]
    assert len(whole) > 5
    assert sorted(parts[0] + parts[1]) == sorted(whole)
    assert min(map(len, parts)) >= len(whole) // 3


def _collected(*words: str) -> list[str]:
    argv = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    argv += ["--lab-arch=x86_64", *words, "scenarios/test_dht.py", "scenarios/test_providers.py"]
    done = subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return [line for line in done.stdout.splitlines() if "::" in line]
