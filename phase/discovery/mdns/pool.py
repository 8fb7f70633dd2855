"""Keeps records until the missing ones come: a few of each sender, of a few senders."""

import random

from phase.discovery.interfaces import Ip
from phase.discovery.mdns import wire
from phase.discovery.mdns.wire import Name, Record

#: Limits: senders, records of each, bytes of one record, and records of one name and type.
MAX_TELLERS, MAX_OF_TELLER, MAX_BYTES, MAX_ALIKE = 32, 128, 512, 8
_KINDS = frozenset((wire.A, wire.AAAA, wire.SRV, wire.TXT))
_Key = tuple[int, Name, int]


class Pool:
    """Records by interface, name and type."""

    def __init__(self) -> None:
        self._kept: dict[_Key, dict[bytes, Ip]] = {}
        self._of: dict[Ip, list[tuple[_Key, bytes]]] = {}

    def __len__(self) -> int:
        return sum(len(each) for each in self._kept.values())

    def add(self, index: int, record: Record, teller: Ip) -> None:
        """Keep a record; without room for it, in place of another.

        Args:
            index: of the interface that it came on.
            record: from anyone.
            teller: address of its sender.
        """
        if record.type not in _KINDS or len(record.data) > MAX_BYTES:
            return
        key = (index, wire.folded(record.name), record.type)
        alike = self._kept.setdefault(key, {})
        if record.data in alike or len(alike) >= MAX_ALIKE:
            return
        of = self._of.get(teller)
        if of is None:
            if len(self._of) >= MAX_TELLERS:
                self._drop_teller(random.choice(list(self._of)))  # noqa: S311
            of = self._of[teller] = []
        if len(of) >= MAX_OF_TELLER:
            # Any of them may be of use.
            position = random.randrange(len(of))  # noqa: S311
            self._drop(*of[position])
            of[position] = of[-1]
            of.pop()
        self._kept.setdefault(key, {})[record.data] = teller
        of.append((key, record.data))

    def find(self, index: int, name: Name, kind: int) -> list[bytes]:
        """The data of the kept records.

        Args:
            index: of the interface.
            name: folded.
            kind: type of record.
        """
        return list(self._kept.get((index, name, kind), ()))

    def _drop_teller(self, teller: Ip) -> None:
        for key, data in self._of.pop(teller):
            self._drop(key, data)

    def _drop(self, key: _Key, data: bytes) -> None:
        alike = self._kept[key]
        del alike[data]
        if not alike:
            del self._kept[key]
