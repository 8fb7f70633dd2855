"""What each mode allows: one table for the seed, the booted system, its provider and its node.

The person at the machine chooses a mode, on the kernel command line or in a boot menu. Nothing that comes
from elsewhere makes it allow more: a signed command line can only name a stricter one (`stricter`).
"""

from typing import NamedTuple


class Mode(NamedTuple):
    """What a machine may do.

    Attributes:
        name: as on the kernel command line.
        mdns: ask the local network for providers, and tell it what is here.
        dht: take part in the distributed hash table.
        beyond: send anything beyond the network segment: routes, name servers.
        disks: read what disks and firmware keep, and write to them.
        serves: answer others: a provider, a mirror, a node.
        lasting: be recognised: the card's own hardware address, an identity that is written down.
        direct: fetch from providers without Tor.
    """

    name: str
    mdns: bool
    dht: bool
    beyond: bool
    disks: bool
    serves: bool
    lasting: bool
    direct: bool


_ALL = dict.fromkeys(Mode._fields[1:], True)
INTERNET = Mode("internet", **_ALL)
LOCAL = Mode("local", **_ALL | {"dht": False, "beyond": False})
PRIVATE = Mode("private", **dict.fromkeys(_ALL, False))
#: The one that allows most comes first.
MODES = (INTERNET, LOCAL, PRIVATE)
NAMES = tuple(mode.name for mode in MODES)


def of(name: str) -> Mode:
    """The mode of a name; a name that is none is of a person who wanted less than everything."""
    return next((mode for mode in MODES if mode.name == name), PRIVATE)


def stricter(*names: str) -> str:
    """The name of the mode that allows least."""
    return MODES[max(MODES.index(of(name)) for name in names)].name
