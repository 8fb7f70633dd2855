"""The segments that are answered on: a card of this machine each, with one address of it."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface
from typing import NamedTuple

from phase.discovery.interfaces import Interface, interfaces
from phase.netboot.errors import NetbootError


class Card(NamedTuple):
    """A card and the address that its segment reaches this machine at.

    Attributes:
        name: of the interface.
        number: of the interface.
        address: with its network.
    """

    name: str
    number: int
    address: IPv4Interface

    def has(self, address: IPv4Address) -> bool:
        """Whether an address is on this segment."""
        return address in self.address.network


def chosen(
    names: Sequence[str], binds: Sequence[str], found: Sequence[Interface] | None = None
) -> list[Card]:
    """The cards to answer on.

    Args:
        names: of interfaces.
        binds: addresses of this machine.
        found: this machine's interfaces; asked of the kernel when left out.

    Raises:
        NetbootError: there is none, it is not said which, or one that is named is not there.
    """
    cards = [
        Card(each.name, each.number, address)
        for each in (interfaces() if found is None else found)
        for address in each.addresses
        if isinstance(address, IPv4Interface) and not each.loopback
    ]
    if not names and not binds:
        return [_only(cards)]
    picked = [_named(name, cards) for name in names] + [_bound(bind, cards) for bind in binds]
    by_name = {each.number: each for each in picked}
    if len({*picked}) > len(by_name):
        raise NetbootError("two addresses of one interface are given", hint="Give one of them.")
    return [*by_name.values()]


def _only(cards: Sequence[Card]) -> Card:
    if len({each.number for each in cards}) > 1:
        raise NetbootError(
            f"this machine is on several segments: {_listed(cards)}", hint="Say which by --interface."
        )
    if not cards:
        raise NetbootError("no interface of this machine is up and has an IPv4 address")
    return cards[0]


def _named(name: str, cards: Sequence[Card]) -> Card:
    found = next((each for each in cards if each.name == name), None)
    if found is None:
        raise NetbootError(
            f"the interface {name} is not there, not up, or has no IPv4 address", hint=_are(cards)
        )
    return found


def _bound(bind: str, cards: Sequence[Card]) -> Card:
    found = next((each for each in cards if str(each.address.ip) == bind.strip()), None)
    if found is None:
        raise NetbootError(f"{bind} is no IPv4 address of an interface that is up", hint=_are(cards))
    return found


def _are(cards: Sequence[Card]) -> str:
    return f"There are: {_listed(cards) or 'none'}."


def _listed(cards: Sequence[Card]) -> str:
    return ", ".join(f"{each.name} ({each.address})" for each in cards)
