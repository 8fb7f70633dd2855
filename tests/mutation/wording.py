"""Find the lines that only say something to a person: they are not mutated.

What a refusal says is not what it does, and a test that pins every sentence hinders those who improve them.
"""

import ast
import io
import tokenize

_PRAGMA = "# pragma: no mutate"
_SAYS = frozenset({"debug", "info", "warning", "error", "exception"})


def marked(source: str) -> str:
    """The source, with mutmut's comment on each line that is wording alone; no line moves.

    Args:
        source: of one Python module.
    """
    lines = {line for node in ast.walk(ast.parse(source)) for line in _wording(node)}
    ends = _ends(source)
    found = source.splitlines(keepends=True)
    for number in lines & ends.keys():
        text = found[number - 1]
        column = ends[number]
        found[number - 1] = f"{text[:column].rstrip()}  {_PRAGMA}{text[len(text.rstrip(chr(10))) :]}"
    return "".join(found)


def _wording(node: ast.AST) -> range:
    spoken: ast.stmt | ast.expr | ast.keyword | None = None
    match node:
        case ast.Raise(exc=ast.Call()):
            spoken = node
        case ast.keyword(arg="hint"):
            spoken = node
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=attr))) if (
            attr in _SAYS and "log" in name.lower()
        ):
            spoken = node
        case ast.FunctionDef(name="__repr__"):
            spoken = node
        case ast.Call(func=ast.Name(id=name)) if name.endswith("Error"):
            spoken = node
    if spoken is None:
        return range(0)
    return range(spoken.lineno, (spoken.end_lineno or spoken.lineno) + 1)


def _ends(source: str) -> dict[int, int]:
    """Of each line that ends outside of a text: the column at which its code ends."""
    ends: dict[int, int] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.NEWLINE, tokenize.NL):
            ends[token.start[0]] = ends.get(token.start[0], token.start[1])
        elif token.type == tokenize.COMMENT:
            ends[token.start[0]] = token.start[1]
    return ends
