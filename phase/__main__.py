"""`python -m phase`."""

from phase.cli import main

main()
