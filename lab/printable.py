"""Takes out of a machine's words what no terminal and no file should get. Standard library only."""

import re

#: What steers a terminal, or makes text look like other text: escape sequences (ECMA-48: CSI; OSC, DCS and
#: their like with all they carry; the short ones), C0 and C1, and Unicode's marks of direction.
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-Z\\`-~]"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


def clean(text: str) -> str:
    """The text without control characters; lines and tabs stay."""
    return _CONTROL.sub("", text)
