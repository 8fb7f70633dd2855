"""The seed's network: when this machine is connected, and what its cards wait for until then.

The script `boot/files/network` brings the cards up, before and beside this program. What it knows of a card
is in `/run/phase/cards/NAME/`; IPv6 addresses are the kernel's own work, by router advertisements.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address
from typing import NamedTuple

from phase import marks, modes
from phase.boot.errors import NetworkError
from phase.boot.machine import Address
from phase.errors import printable

#: Seconds in which a driver may bring a card, or there is none.
_CARD_SECONDS = 5.0
#: Seconds for which a lease by IPv4 is waited for when there is an IPv6 address already.
_IPV4_SECONDS = 3.0
_MOST_CARDS, _MOST_BYTES, _MOST_SHOWN = 64, 4096, 120
#: linux/if_addr.h: an address that is not to be used (yet): DADFAILED, TENTATIVE.
_UNUSABLE = 0x08 | 0x40
#: PCI base class of network controllers; USB classes of those: communications, wireless, vendor's own.
_PCI_NETWORK, _USB_NETWORK = "0x02", ("02", "e0", "ff")


class Card(NamedTuple):
    """What the script knows of a card; texts are empty where there is nothing to know.

    Attributes:
        name: of the interface.
        lease: IPv4 address by DHCP.
        link_local: IPv4 address that the machine gave itself (RFC 3927).
        waits: what the card waits for, in words.
    """

    name: str
    lease: str
    link_local: str
    waits: str


class Network:
    """This machine's network cards.

    Args:
        run: where the script writes.
        sys: where the kernel shows its devices.
        proc: and its state.
        script: what writes the resolver's configuration anew.
    """

    def __init__(
        self,
        *,
        run: str = "/run/phase",
        sys: str = "/sys",
        proc: str = "/proc",
        script: str = "/usr/lib/phase/network",
    ) -> None:
        self._run = run
        self._sys = sys
        self._proc = proc
        self._script = script
        #: When the first of a row of questions for an address came.
        self._since: float | None = None
        self._turns = 0

    def address(self) -> Address | None:
        """The first card with an address; None as long as there is none.

        Other cards may follow; the search for providers uses them all.

        Raises:
            NetworkError: there is no card, some seconds after the first question.
        """
        now = time.monotonic()
        if self._since is None:
            self._since = now
        found = self.cards()
        address = self._connected(found, alone=now > self._since + _IPV4_SECONDS)
        if address is None and not found and now > self._since + _CARD_SECONDS:
            self._since = None
            raise NetworkError(
                f"no network card that this seed can drive: {undriven(self._sys)}",
                hint="Build a seed whose kernel has a driver for it, or use another card.",
            )
        return address

    def waits(self) -> str:
        """What the cards wait for, in one line."""
        return printable("; ".join(f"{card.name}: {card.waits or 'starting'}" for card in self.cards()))

    def _connected(self, found: list[Card], *, alone: bool) -> Address | None:
        for card in found:
            if card.lease:
                return Address(card.name, card.lease)
        # A card that gave itself an address has waited for a lease already.
        by_router = self.addresses6() if alone or any(card.link_local for card in found) else {}
        for card in found:
            if card.name in by_router:
                self.learn_name_servers([card.name for card in found])
                return Address(card.name, by_router[card.name])
        for card in found:
            if card.link_local:
                return Address(card.name, card.link_local)
        return None

    def cards(self) -> list[Card]:
        """Every Ethernet card that the script has found, by name."""
        base = f"{self._run}/cards"
        try:
            names = sorted(os.listdir(base))[:_MOST_CARDS]
        except OSError:
            return []
        return [
            Card(name, *(_line(f"{base}/{name}/{what}") for what in ("lease", "link-local", "waits")))
            for name in names
        ]

    def addresses6(self) -> dict[str, str]:
        """Each interface's first IPv6 address that reaches further than the link."""
        found: dict[str, str] = {}
        for line in _text(f"{self._proc}/net/if_inet6", most=1 << 16).splitlines():
            words = line.split()
            # Address, index, length of the prefix, scope (0 is global), flags, name.
            if len(words) == 6 and words[3] == "00" and not int(words[4], 16) & _UNUSABLE:
                found.setdefault(words[5], str(IPv6Address(bytes.fromhex(words[0]))))
        return found

    def learn_name_servers(self, names: list[str]) -> None:
        """Ask routers for name servers (RFC 8106) where DHCP told of none: the kernel does not keep them.

        Without any, this machine still reaches providers by their addresses.

        Args:
            names: of the cards to ask on.
        """
        # A mode that nobody has written down allows nothing.
        mode = modes.of(_text(f"{self._run}/mode"))
        if not mode.beyond or "nameserver" in _text(f"{self._run}/resolv"):
            return
        from phase.boot import advertisement

        # A card may be pulled out meanwhile; its directory goes with it.
        with _said("no name server is known"):
            for name, told in advertisement.ask(names).items():
                path = f"{self._run}/cards/{name}/names6"
                with open(f"{path}.new", "w") as handle:
                    handle.writelines(f"{line}\n" for line in told.lines(name))
                os.rename(f"{path}.new", path)
            self._write_names()

    def turn_name_servers(self) -> None:
        """Let the name servers of another card be asked first.

        A resolver that is told "there is no such name" asks no further server, and two networks may know
        different names.
        """
        base = f"{self._run}/cards"
        names = [
            card.name
            for card in self.cards()
            if any(_text(f"{base}/{card.name}/{file}") for file in ("names", "names6"))
        ]
        if len(names) > 1:
            self._turns += 1
            with _said("the order of the name servers stays"):
                with open(f"{self._run}/first", "w") as handle:
                    handle.write(f"{names[self._turns % len(names)]}\n")
                self._write_names()

    def _write_names(self) -> None:
        # Not subprocess: nothing else here needs that module.
        os.waitpid(os.posix_spawn(self._script, [self._script, "names"], {}), 0)


@contextmanager
def _said(what: str) -> Iterator[None]:
    """Say what an error of the system leads to, and go on."""
    try:
        yield
    except OSError as error:
        marks.say(f"network: {what}: {error.strerror or error}")


def undriven(sys: str = "/sys") -> str:
    """The network cards that this machine shows, and that have no driver, by their ids."""
    found = []
    for device in _devices(f"{sys}/bus/pci/devices"):
        if _text(f"{device}/class").startswith(_PCI_NETWORK) and not os.path.exists(f"{device}/driver"):
            vendor, product = (_text(f"{device}/{name}")[2:] for name in ("vendor", "device"))
            found.append(f"PCI {vendor}:{product}")
    for interface in _devices(f"{sys}/bus/usb/devices"):
        network = _text(f"{interface}/bInterfaceClass") in _USB_NETWORK
        if network and not os.path.exists(f"{interface}/driver"):
            device = interface.rpartition(":")[0]
            vendor, product = (_text(f"{device}/{name}") for name in ("idVendor", "idProduct"))
            found.append(f"USB {vendor}:{product}")
    if not found:
        return "this machine shows none"
    return "no driver for " + ", ".join(dict.fromkeys(found))


def _devices(path: str) -> list[str]:
    try:
        return [f"{path}/{name}" for name in sorted(os.listdir(path))]
    except OSError:
        return []


def _line(path: str) -> str:
    """A small file's first line, as it may be shown: a server's own words may be in it."""
    return printable(_text(path).partition("\n")[0][:_MOST_SHOWN])


def _text(path: str, *, most: int = _MOST_BYTES) -> str:
    """A small file's text; empty where it cannot be read (yet)."""
    try:
        with open(path, "rb") as handle:
            return handle.read(most).decode("ascii", "replace").strip()
    except OSError:
        return ""
