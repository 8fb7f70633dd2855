"""Every command on a page is run by a test, or says why it is not (docs/develop/pages.md)."""

import ast
import configparser
import re
import tomllib
from pathlib import Path

import pytest

from tests import pages

BLOCKS = [block for page in pages.pages() for block in pages.blocks(page)]
#: `tox run -e ENV -- PATH…`, and the short form.
_TOX = re.compile(r"\btox(?: run)?(?: -q)? -e ([\w.,-]+)(?: -- ([^`|#]*))?")


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page}:{block.line}")
def test_a_block_is_run_or_says_why_not(block: pages.Block) -> None:
    assert block.how, "no comment before it says what runs it: see docs/develop/pages.md"
    if block.how == "not run":
        assert len(block.by.split()) >= 3, "this is not a reason"
        return
    file, _, name = block.by.partition("::")
    source = (pages.PROJECT / file).read_text()
    names = {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)}
    assert name in names, f"there is no test {block.by}"
    assert Path(block.page).name in source, f"{file} does not name this page"


def test_there_are_pages_with_commands() -> None:
    assert {"README.md", "docs/use/releases.md"} <= {block.page for block in BLOCKS}


@pytest.mark.parametrize("page", pages.pages())
def test_what_a_tox_command_names_exists(page: str) -> None:
    told = configparser.ConfigParser(interpolation=None)
    told.read(pages.PROJECT / "tox.ini")
    known = {"lab-x86_64", "lab-arm64", *(name.partition(":")[2] for name in told.sections())}
    for environments, words in _TOX.findall((pages.PROJECT / page).read_text()):
        assert set(environments.split(",")) <= known
        for word in words.split():
            if re.match(r"(tests|scenarios|phase|lab|boot)/", word):
                assert (pages.PROJECT / word.partition("::")[0]).exists(), f"{page}: {word}"


@pytest.mark.parametrize("page", pages.pages())
def test_what_make_is_asked_for_exists(page: str) -> None:
    made = set(re.findall(r"^([\w-]+):", (pages.PROJECT / "Makefile").read_text(), re.MULTILINE))
    asked = [step for block in pages.blocks(page) if block.language == "console" for step, _ in block.steps]
    targets = [words[1] for words in map(str.split, asked) if words[0] == "make"]
    assert set(targets) <= made


@pytest.mark.parametrize("page", pages.pages())
def test_a_link_leads_to_a_file(page: str) -> None:
    """Sphinx checks those inside of docs/, and nobody else those of the pages outside."""
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[\w-]+)?\)", (pages.PROJECT / page).read_text()):
        assert (pages.PROJECT / page).parent.joinpath(target).exists(), target


@pytest.mark.parametrize("page", pages.pages())
def test_no_command_hides_in_an_indented_block(page: str) -> None:
    """Those are not looked at above."""
    text = (pages.PROJECT / page).read_text()
    assert re.findall(r"\n\n {4}(?:\$ )?(?:phase|tox|make|pip) .*", text) == []


def test_fix_and_the_hooks_use_the_ruff_of_lint() -> None:
    told = configparser.ConfigParser(interpolation=None)
    told.read(pages.PROJECT / "tox.ini")
    extras = tomllib.loads((pages.PROJECT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    (ruff,) = [each for each in extras["lint"] if each.startswith("ruff")]
    assert told["testenv:fix"]["deps"].splitlines()[1:] == [ruff]
    hooks = (pages.PROJECT / ".pre-commit-config.yaml").read_text()
    assert re.findall(r"entry: (\S+)", hooks) == [".tox/lint/bin/ruff"] * 2


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        (["a 1"], ["a 22"], True),
        (["a 1"], ["b 22"], False),
        (["a", "...", "c"], ["a", "b", "b", "c"], True),
        (["a", "...", "c"], ["a", "c"], True),
        (["a", "..."], ["a", "b"], True),
        (["a", "...", "c"], ["a", "b"], False),
        (["a"], ["a", "b"], False),
        (["node 6bdd29c518ae50d1"], ["node 0000000000000000"], True),
    ],
)
def test_what_is_printed_is_compared_with_the_page(
    expected: list[str], printed: list[str], same: bool
) -> None:
    assert pages.alike(expected, printed) is same


def test_a_command_may_go_on_in_the_next_line() -> None:
    block = pages.Block("x.md", 1, "console", ("$ a \\", "    b", "out", "$ c"), "", "")
    assert block.steps == [("a \\\n    b", ["out"]), ("c", [])]


def test_a_fence_of_another_kind_hides_no_block() -> None:
    lines = ["```{toctree}", ":hidden:", "", "a", "```", "<!-- not run: it is an example here -->"]
    lines += ["```console", "$ a", "```", "```console", "$ b", "```"]
    found = list(pages.read("x.md", lines))
    assert [(block.line, block.lines, block.how) for block in found] == [
        (7, ("$ a",), "not run"),
        (10, ("$ b",), ""),
    ]
