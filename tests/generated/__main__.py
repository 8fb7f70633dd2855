"""Writes what is made from the code."""

from tests.generated.files import PLACES

for path, render in PLACES.items():
    path.write_text(render())
    print(path)
