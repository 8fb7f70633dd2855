"""Pages as tests read them: the blocks of commands, and what runs each (docs/develop/pages.md)."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
_FENCE = re.compile(r"^( *)```(\S*)")
_NOTE = re.compile(r"^ *<!-- (run|not run): (.+) -->$")
#: What differs from run to run, in this order.
_VARIES = (
    (re.compile(r"\b[0-9a-f]{8,64}\b"), "HASH"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT[\d:.]+Z"), "TIME"),
    (re.compile(r"/\S*/"), "DIR/"),
    (re.compile(r"\d+"), "N"),
)


@dataclass(frozen=True)
class Block:
    """A fenced block of commands.

    Args:
        page: path in the project.
        line: its first line, from 1.
        language: the word behind the fence.
        lines: without the list's indentation.
        how: `run`, `not run`, or empty.
        by: the test, or the reason.
    """

    page: str
    line: int
    language: str
    lines: tuple[str, ...]
    how: str
    by: str

    @property
    def steps(self) -> list[tuple[str, list[str]]]:
        """Each command, and the lines that the page says it prints."""
        found: list[tuple[str, list[str]]] = []
        more = False
        for line in self.lines:
            if more:
                found[-1] = (f"{found[-1][0]}\n{line}", [])
            elif line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
            more = line.endswith("\\") and not found[-1][1]
        return found


def pages() -> list[str]:
    """Every page that people read, by its path in the project."""
    docs = (path for path in (PROJECT / "docs").rglob("*.md") if "_build" not in path.parts)
    named = (PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md"))
    return [str(path.relative_to(PROJECT)) for path in (*named, *sorted(docs))]


def blocks(page: str) -> list[Block]:
    """The `console` and `sh` blocks of a page.

    Args:
        page: path in the project.
    """
    return list(read(page, (PROJECT / page).read_text().splitlines()))


def read(page: str, lines: list[str]) -> Iterator[Block]:
    """The `console` and `sh` blocks in a page's lines.

    Args:
        page: its path.
        lines: of its text.
    """
    how = by = ""
    numbered = enumerate(lines, 1)
    for number, line in numbered:
        if note := _NOTE.match(line):
            how, by = note.groups()
        elif fence := _FENCE.match(line):
            indent, language = fence.groups()
            body = []
            for _, inner in numbered:
                if inner.strip() == "```":
                    break
                body.append(inner.removeprefix(indent))
            if language in ("console", "sh"):
                yield Block(page, number, language, tuple(body), how, by)
                if how == "not run":
                    # A reason is about one block.
                    how = by = ""


def chosen(page: str, test: str) -> list[Block]:
    """The blocks of a page that a test runs.

    Args:
        page: path in the project.
        test: name of the function.
    """
    return [each for each in blocks(page) if each.how == "run" and each.by.endswith(f"::{test}")]


def environment(directory: Path, more: Mapping[str, str] = {}) -> dict[str, str]:
    """Variables with which `phase` and `python3` are those of this run.

    Args:
        directory: where to put the two programs.
        more: other variables.
    """
    programs = directory / "bin"
    programs.mkdir(exist_ok=True)
    for name, words in (("phase", "-m phase "), ("python3", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words}"$@"\n')
        (programs / name).chmod(0o755)
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(PROJECT), **more}


def run(found: list[Block], directory: Path, variables: Mapping[str, str], seconds: float = 300) -> str:
    """Run blocks in one shell, in their order, and compare what they print with the page.

    Args:
        found: the blocks.
        directory: where to run them.
        variables: the environment.
        seconds: for all of them.

    Returns:
        What they printed.
    """
    steps = [step for block in found for step in block.steps]
    assert steps, "the page has no such block"
    script = ["set -e", "exec < <(yes) 2>&1"]
    for number, (command, _) in enumerate(steps):
        # What comes before may not have ended its line.
        script += [f"printf '\\n@@ {number}\\n'", command]
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=directory,
        env=dict(variables),
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    parts = re.split(r"\n@@ \d+\n", done.stdout)[1:]
    for (command, expected), printed in zip(steps, parts, strict=True):
        if expected:
            assert alike(expected, printed.splitlines()), f"$ {command}\n{printed}"
    return "".join(parts)


def alike(expected: list[str], printed: list[str]) -> bool:
    """Whether a program printed what a page shows, apart from what differs from run to run.

    Args:
        expected: the page's lines; `...` stands for any lines.
        printed: the program's.
    """
    pattern = "\n".join(
        r"(?:.*\n?)*?" if line.strip() == "..." else re.escape(plain(line)) for line in expected
    )
    # A gap takes the end of its line with it.
    pattern = pattern.replace("(?:.*\\n?)*?\n", "(?:.*\\n)*?")
    return re.fullmatch(pattern, "\n".join(plain(line) for line in printed)) is not None


def plain(line: str) -> str:
    """A line without what differs from run to run."""
    for varies, word in _VARIES:
        line = varies.sub(word, line)
    return line.rstrip()
