"""`python3 -m lab.doctor setup`: what `make` runs before anything else exists."""

import sys

from lab.doctor.setup import Failed, setup


def main(arguments: list[str]) -> int:
    """Runs the set-up.

    Args:
        arguments: the one word `setup`.

    Returns:
        0 when the machine is ready, 1 when it is not, 2 for other arguments.
    """
    if arguments != ["setup"]:
        print("usage: python3 -m lab.doctor setup\n(the report is `python3 -m lab doctor`)", file=sys.stderr)
        return 2
    try:
        setup()
    except Failed as error:
        print(f"phase: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
