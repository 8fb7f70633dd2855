"""Writes what is made from the code."""

from tests.pages.files import PLACES

for path, render in PLACES.items():
    path.write_text(render())
    print(path)
