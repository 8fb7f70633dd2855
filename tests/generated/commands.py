"""docs/commands.md: every command, its options, their defaults, and what --json prints."""

import re
from typing import Any

import click
import msgspec

from phase.cli import COMMANDS, cli, facts
from phase.cli._options import Option
from phase.cli.config import walk

_HEAD = """# Commands
Made from the code by `python -m tests.generated`; a test says that it is so.

`phase COMMAND -h` says the same. `phase --version` says which version this is, of which commit, with which
engine, on which Python. `phase --config FILE COMMAND` reads that file before the other
[configuration files](reference.md#configuration). An option means the same in every command that has it.

"""
_OBJECTS = """## What --json prints
One object; `discover` and `provider list` print one for each provider, a line each. Fields may be added;
none changes its meaning. `phase receipt verify --json` prints the [receipt](tables.md#receipts), and
`phase provider status --json` what the provider says at `/status`.

"""


def render() -> str:
    """The page."""
    parts = [_HEAD]
    root = click.Context(cli, info_name="phase", **cli.context_settings)
    for name in COMMANDS:
        for place, found in walk(name):
            parts.append(_command(root, place, found))
    parts.append(_OBJECTS)
    parts += [_object(kind) for kind in _kinds()]
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _command(root: click.Context, place: tuple[str, ...], found: click.Command) -> str:
    context = click.Context(found, parent=root, info_name=" ".join(place))
    usage = found.get_usage(context).removeprefix("Usage: ")
    lines = [f"## phase {' '.join(place)}", f"`{' '.join(usage.split())}`", "", _text(found.help or "")]
    rows = [_row(context, each) for each in found.params if isinstance(each, Option)]
    if rows:
        lines += ["", "| option | default | |", "|---|---|---|", *rows]
    return "\n".join(lines) + "\n"


def _text(text: str) -> str:
    plain, _, block = re.sub(r"[ \t]+", " ", text).partition("\b")
    paragraphs = [" ".join(each.split()) for each in plain.split("\n\n")]
    table = "tables.md#exit-codes-of-phase-run-and-phase-job"
    codes = f"\n\nIts exit codes are in [a table]({table})." if block else ""
    return "\n\n".join(filter(None, paragraphs)) + codes


def _row(context: click.Context, each: Option) -> str:
    name, text = each.get_help_record(context) or ("", "")
    extra: Any = each.get_help_extra(context)
    text = text.partition("  [")[0]
    default = "required" if "required" in extra else extra.get("default", "")
    if "range" in extra:
        text = f"{text.rstrip('.')}; {extra['range']}."
    return f"| `{name.replace('|', chr(92) + '|')}` | {_cell(default)} | {_cell(text)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("{", "\\{").replace("\n", " ")


def _kinds() -> list[type[facts.Facts]]:
    return [
        each
        for each in vars(facts).values()
        if isinstance(each, type) and issubclass(each, facts.Facts) and each is not facts.Facts
    ]


def _object(kind: type[facts.Facts]) -> str:
    says = " ".join((kind.__doc__ or "").split())
    lines = [f"### {kind.__name__}", says, "", "| field | type | |", "|---|---|---|"]
    lines += fields(kind)
    return "\n".join(lines) + "\n"


def fields(kind: type[msgspec.Struct]) -> list[str]:
    """A row for each field of a struct."""
    _, components = msgspec.json.schema_components([kind], ref_template="{name}")
    found = components[kind.__name__]["properties"]
    return [
        f"| `{name}` | {_cell(shape(each))} | {_cell(each.get('description', ''))} |"
        for name, each in found.items()
    ]


def shape(schema: dict[str, Any]) -> str:
    """The type of a JSON schema, in words."""
    if "$ref" in schema:
        return str(schema["$ref"])
    if "anyOf" in schema:
        return " or ".join(shape(each) for each in schema["anyOf"])
    kind = schema.get("type", "any")
    if kind == "array":
        inner = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
        return f"list of {shape(inner)}" if isinstance(inner, dict) else "list"
    if kind == "object":
        inner = schema.get("additionalProperties")
        return f"object of {shape(inner)}" if isinstance(inner, dict) else "object"
    return str(kind)
