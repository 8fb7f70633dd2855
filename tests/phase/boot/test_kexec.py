from pathlib import Path

import pytest

from phase.boot.errors import HandoffError
from phase.boot.kexec import Image, Segment, load


@pytest.mark.parametrize("content", [(4000, 200), (-1, 8), (0, -1)])
def test_no_segment_reaches_out_of_the_file(tmp_path: Path, content: tuple[int, int]) -> None:
    """Refused before the running kernel hears of it; the file can be used again."""
    path = tmp_path / "initrd"
    path.write_bytes(bytes(4096))
    with path.open("r+b") as file:
        with pytest.raises(HandoffError, match="not in a file of 4096"):
            load(Image(0, (Segment(0, 4096, content),)), file.fileno())
        file.truncate(8192)
