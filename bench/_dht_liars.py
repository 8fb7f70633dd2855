"""Nodes of a DHT that lie, of three kinds; they know of each other, and work together.

- A poisoner has an id like any other node. It answers a search for values with three: one torn, one expired,
  and one that is truly signed and leads to somebody else.
- An eclipse node has an id that only differs from the attacked place in the last bits. It keeps what it is
  told to keep, as far as anybody hears, and has nothing when it is asked.
- A sybil names only liars, those nearest to what is looked for. Its host has, of eight that its owner could
  rent, the best for the attacked place, in case that ids depend on addresses.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence

import msgspec

from bench._dht_nodes import PORT, Wanted
from bench._dht_tape import Address
from fixtures.hostile.dht import Liar, liar

KINDS = ("poisoner", "eclipse", "sybil")
Contact = tuple[bytes, str, int]


class Gang:
    """All liars of one network.

    Args:
        members: their ids and addresses.
        wanted: what honest nodes have announced.
    """

    def __init__(self, members: Sequence[Contact], wanted: Sequence[Wanted]) -> None:
        self._members = members
        self._wanted = {each.place: each for each in wanted}

    def nearest(self, place: bytes) -> list[Contact]:
        """The twenty liars that are nearest to a place."""
        target = int.from_bytes(place)
        return sorted(self._members, key=lambda one: int.from_bytes(one[0]) ^ target)[:20]

    def values(self, place: bytes, host: str) -> list[bytes]:
        """Three values that are not what is wanted."""
        wanted = self._wanted.get(place)
        if wanted is None:
            return []
        true = wanted.sign()
        return [
            true.replace(b"payload", b"payloat", 1),
            wanted.sign(now=time.time() - 2000),
            wanted.sign(host, seed=1 + int.from_bytes(host.encode()) % 1000),
        ]

    def answers(self, kind: str, host: str, *, lists: bool) -> dict[str, object]:
        """What a liar answers, by question.

        Args:
            kind: of `KINDS`.
            host: its own.
            lists: whether those who ask take several values.
        """
        kept: dict[bytes, list[bytes]] = {}

        def poison(arguments: list[bytes]) -> object:
            place = arguments[1]
            values = kept.setdefault(place, self.values(place, host))
            if not values:
                return self.nearest(place)
            return {"value": values, "nodes": self.nearest(place)} if lists else {"value": values[2]}

        def name(arguments: list[bytes]) -> object:
            return self.nearest(arguments[1])

        return {
            "find_node": name,
            "find_value": poison if kind == "poisoner" else name,
            "store": True,
            "stun": lambda arguments: (host, PORT),
        }


async def begin(
    gang: Gang, kind: str, contact: Contact, honest: Sequence[str], *, lists: bool
) -> Callable[[], None]:
    """Start a liar, and let it make itself known to honest nodes; returns what ends it."""
    id_, host, port = contact
    one, _ = await liar(host, port, id_, **gang.answers(kind, host, lists=lists))
    for number, each in enumerate(honest):
        _greet(one, (each, PORT))
        if number % 10 == 9:
            await asyncio.sleep(0.05)
    return one.transport.close


def _greet(one: Liar, address: Address) -> None:
    question = msgspec.msgpack.encode(("ping", (one.id,)))
    one.transport.sendto(b"\0" + os.urandom(20) + question, address)
