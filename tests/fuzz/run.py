"""A coverage-guided run of one target, by hand: `tox -e fuzz -- TARGET [libFuzzer options]`.

Needs atheris, which is in no extra; `tox -e fuzz` has it.
"""

import importlib
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

#: Looked into for coverage; the rest of the world would only slow it down.
INSTRUMENTED = ["phase", "tuf.api", "securesystemslib.formats"]


def main() -> None:
    """Fuzz until a limit of libFuzzer's is reached (`-max_total_time=60`), or something breaks."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzz.targets import cases
    found = cases()
    if len(sys.argv) < 2 or sys.argv[1] not in found:
        sys.exit(f"usage: python -m tests.fuzz.run {'|'.join(sorted(found))} [-max_total_time=60 ...]")
    case = found[sys.argv[1]]
    with TemporaryDirectory() as corpus:
        for number, seed in enumerate(case.seeds):
            Path(corpus, str(number)).write_bytes(seed)
        options = ["-max_len=20000", "-timeout=10", "-rss_limit_mb=1024", *sys.argv[2:]]
        atheris.Setup([sys.argv[0], *options, corpus], case.run)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
