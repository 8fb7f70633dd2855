"""`python3 -m lab.doctor setup`: what `make` runs before anything else exists."""

import argparse
import sys
from collections.abc import Sequence

from lab.doctor.needs import choose
from lab.doctor.setup import Failed, setup


def main(arguments: Sequence[str]) -> int:
    """Runs the set-up.

    Args:
        arguments: the word `setup`, and what for.

    Returns:
        0 when the machine is ready, 1 when it is not. Other arguments end the process with status 2.
    """
    parser = argparse.ArgumentParser(
        prog="python3 -m lab.doctor", epilog="What this machine has and lacks, `python3 -m lab doctor` says."
    )
    parser.add_argument("command", choices=["setup"], help="install what is missing")
    choose(parser)
    parsed = parser.parse_args(arguments)
    try:
        setup(parsed.purpose, parsed.arch or ())
    except Failed as error:
        print(f"phase: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
