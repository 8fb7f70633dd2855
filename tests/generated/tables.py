"""docs/tables.md: exit codes, environment, receipts, and what pytest knows of the lab."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from phase import cli
from phase.cli import _outcome
from phase.jobs.limits import Limits
from phase.jobs.receipt import Receipt
from phase.jobs.status import Exited, Killed, LimitHit, Rejected, Trapped
from tests.generated import words
from tests.generated.commands import shape

_TREE = Path(__file__).parents[2]
_HEAD = """# Tables
Made from the code by `python -m tests.generated`; a test says that it is so.
"""
#: Variables that are not those of an option. A test says that there are no others.
VARIABLES = {
    "PHASE_CACHE": "where `boot` and the scenarios keep what they downloaded and built; `~/.cache/phase`",
    "PHASE_CGROUP": "directory of cgroup v2 in which each job gets a group of its own",
    "PHASE_CONFIG": "as `phase --config`",
    "PHASE_CONSOLES": "the consoles of a booted system, for its scripts; its first process sets it",
    "PHASE_DEBIAN_MIRROR": "where `boot` takes packages from",
    "PHASE_DEBIAN_SECURITY_MIRROR": "where `boot` takes security updates from",
    "PHASE_MARKS": "`kmsg`: marks of a boot are written to the kernel's log",
    "PHASE_MARK_COPIES": "how often a mark is written; the system sets it from `phase.marks=`",
    "PHASE_MARK_LEVEL": "`7`: marks are for the kernel's log alone, not for its screens",
    "PHASE_RELEASE_PASSPHRASE": "the passphrase of release keys, where --passphrase-file gives none",
    "PHASE_YEARS": "tests: how many years of an operator's life are tried",
    "LAB_ACCEL": "`tcg`, `kvm` or `hvf`: the accelerator, without asking the host",
    "LAB_CABLE_BOARD": "set for a glass board: the port of its end of the cable",
    "LAB_CABLE_LAB": "set for a glass board: the port of the lab's end of the cable",
    "LAB_LEASES": "directory of the leases that all runs on a host share; `/tmp/lab-leases-UID`",
    "LAB_MEDIUM": "set for a board's command that writes a medium: the file to write",
    "LAB_TIMEOUT_FACTOR": "every timeout is multiplied by it, 0.1 to 100; else measured",
}


def render() -> str:
    """The page."""
    return "\n".join((_HEAD, _codes(), _run_codes(), _environment(), _receipts(), _pytest()))


def _codes() -> str:
    rows = [f"| {code} | {says} |" for code, says in cli.EXIT_CODES.items()]
    return "\n".join(
        [
            "## Exit codes",
            "Of every command but `phase run` and `phase job`.",
            "",
            "| code | |",
            "|---|---|",
            *rows,
            "",
        ]
    )


def _run_codes() -> str:
    rows = [f"| {code} | {says} | {like} |" for code, says, like in _outcome.CODES]
    return "\n".join(
        ["## Exit codes of phase run and phase job", "| code | | as in |", "|---|---|---|", *rows, ""]
    )


def _environment() -> str:
    lines = [
        "## Environment",
        "Every option that a configuration file may hold has variables: `PHASE_PORT` for each command",
        "that has `--port`, `PHASE_SERVE_PORT` for `phase serve` alone, `PHASE_RELEASE_ADD_DAYS`. The",
        "longest name that is set counts. A flag is `1` or `0`; several values are separated by spaces,",
        "paths by colons. The others:",
        "",
        "| variable | |",
        "|---|---|",
        *(f"| `{name}` | {says} |" for name, says in sorted(VARIABLES.items())),
        "",
    ]
    return "\n".join(lines)


def named() -> set[str]:
    """Variables that the code names."""
    found: set[str] = set()
    for place in ("phase", "lab", "boot", "scenarios", "tests/phase/release"):
        for path in (_TREE / place).rglob("*"):
            if path.is_file() and path.suffix not in (".pyc", ".md"):
                text = path.read_text(errors="ignore")
                found |= set(re.findall(r"(?<![A-Z_])(?:PHASE|LAB)_[A-Z_]*[A-Z]", text))
    return found


def of_options() -> set[str]:
    """Variables of options."""
    return {
        name
        for place, several in words.options().items()
        for each in several
        for name in each.variables(place)
    }


def _receipts() -> str:
    lines = [
        "## Receipts",
        "The predicate `https://phase.dev/receipt/v1` of an in-toto Statement v1 in a DSSE envelope; its",
        "subject is the output. The schemas are in `phase/jobs/schemas`.",
        "",
        "| field | type | |",
        "|---|---|---|",
        *_documented(Receipt),
        "",
        "`limits` holds:",
        "",
        "| field | type | |",
        "|---|---|---|",
        *_documented(Limits),
        "",
        "`status` is one of:",
        "",
        "| kind | fields | |",
        "|---|---|---|",
    ]
    for kind in (Exited, Trapped, LimitHit, Rejected, Killed):
        inner = ", ".join(f"`{field.name}`" for field in msgspec.structs.fields(kind))
        lines.append(f"| `{kind.__struct_config__.tag}` | {inner} | {kind.__doc__} |")
    return "\n".join([*lines, ""])


def _documented(kind: type[msgspec.Struct]) -> list[str]:
    """A row for each field, with what the docstring says of it."""
    says: dict[str, str] = {}
    doc = inspect.cleandoc(kind.__doc__ or "")
    for name, text in re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", doc, re.MULTILINE):
        says[name] = " ".join(text.split())
    _, components = msgspec.json.schema_components([kind], ref_template="{name}")
    found: dict[str, dict[str, Any]] = components[kind.__name__]["properties"]
    assert set(says) == set(found), set(says) ^ set(found)
    return [f"| `{name}` | {_shape(each)} | {says[name]} |" for name, each in found.items()]


def _shape(schema: dict[str, Any]) -> str:
    return "one of those below" if len(schema.get("anyOf", ())) > 2 else shape(schema)


class _Recorder:
    """A parser of pytest's that remembers what was added to it."""

    def __init__(self) -> None:
        self.options: list[tuple[str, dict[str, Any]]] = []

    def getgroup(self, *_: str) -> "_Recorder":
        return self

    def addoption(self, name: str, *_: str, **more: Any) -> None:
        self.options.append((name, more))


def _pytest() -> str:
    from lab import plugin

    recorder = _Recorder()
    plugin.pytest_addoption(recorder)  # type: ignore[arg-type]  # all that is asked of a parser
    rows = []
    for name, more in recorder.options:
        value = f" {more.get('metavar', more.get('type', str).__name__.upper())}"
        flag = more.get("action") in ("store_true", "store_const")
        choices = "\\|".join(more.get("choices", ()))
        shown = name if flag else name + (f" {choices}" if choices else value)
        rows.append(f"| `{shown}` | {_say(more['help'])} |")
    marks = [f"| `{name}` | {_say(says)} |" for name, says in _marks()]
    return "\n".join(
        [
            "## pytest and the lab",
            "| option | |",
            "|---|---|",
            *rows,
            "",
            "| mark | |",
            "|---|---|",
            *marks,
            "",
        ]
    )


def _say(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _marks() -> list[tuple[str, str]]:
    command = [sys.executable, "-m", "pytest", "-p", "lab.plugin", "-p", "no:cacheprovider", "--markers"]
    done = subprocess.run(command, cwd=_TREE, capture_output=True, text=True, check=True, timeout=100)
    return re.findall(r"^@pytest\.mark\.(lab\b[^:]*): (.*)$", done.stdout, re.MULTILINE)
