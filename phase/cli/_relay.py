"""The option that makes a relay of a command that listens by TCP anyway."""

from phase.cli import _options

relay_for_option = _options.option(
    "--relay-for",
    multiple=True,
    metavar="WHO",
    help="Be a relay for the peer with this key, for those of a file with one key a line, or for all: "
    "`open`. Repeat for more.",
)
