"""Sphinx's configuration."""

project = "Phase"
author = "The Phase authors"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "Phase"
myst_heading_anchors = 3
nitpicky = True
# Console sessions hold output that no lexer was made for.
suppress_warnings = ["misc.highlighting_failure"]
