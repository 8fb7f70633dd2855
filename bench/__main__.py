"""`python -m bench [NAME...]`: run measurements; each prints a ratio and its budget.

python -m bench                 all of them
python -m bench loop run        these
"""

import importlib
import pkgutil
import sys
from pathlib import Path


def names() -> list[str]:
    """Every module here with a `main`."""
    found = (module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    return sorted(name for name in found if not name.startswith("_"))


def main() -> int:
    known = [name for name in names() if hasattr(importlib.import_module(f"bench.{name}"), "main")]
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(f"{__doc__}\nThere are: {', '.join(known)}. `python -m bench.NAME --help` says more of one.")
        return 0
    chosen = sys.argv[1:] or known
    unknown = [name for name in chosen if name not in known]
    if unknown:
        print(f"no measurement {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    missed = []
    for name in chosen:
        print(f"== {name}", flush=True)
        sys.argv = [f"bench.{name}"]
        if importlib.import_module(f"bench.{name}").main():
            missed.append(name)
    if missed:
        print(f"over budget: {', '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
