"""Carries frames between a trunk, where they have a VLAN's tag, and a segment, where they have none.

Source: IEEE 802.1Q.
"""

from lab.net.segment import Segment

#: Ethernet's type of a tagged frame, and the bits of a tag that are the VLAN's number.
_TAGGED = b"\x81\x00"
_NUMBER = 0x0FFF
#: Bytes of the two hardware addresses, before which nothing is put.
_ADDRESSES = 12


class Vlan:
    """A VLAN of a trunk, as a segment of its own.

    Args:
        number: of the VLAN, 1 to 4094.
        trunk: the segment whose frames have tags.
        access: the segment of the VLAN's machines, whose frames have none.
    """

    def __init__(self, number: int, trunk: Segment, access: Segment) -> None:
        self._tag = _TAGGED + number.to_bytes(2, "big")
        self._number = number
        self._trunk = trunk.switch.add_service(self._from_trunk, f"{access.name}-vlan{number}")
        self._access = access.switch.add_service(self._from_access, f"{trunk.name}-vlan{number}")

    def _from_trunk(self, frame: bytes) -> list[bytes]:
        kind, tag = frame[_ADDRESSES : _ADDRESSES + 2], frame[_ADDRESSES + 2 : _ADDRESSES + 4]
        if kind == _TAGGED and int.from_bytes(tag, "big") & _NUMBER == self._number:
            self._access.send(frame[:_ADDRESSES] + frame[_ADDRESSES + 4 :])
        return []

    def _from_access(self, frame: bytes) -> list[bytes]:
        self._trunk.send(frame[:_ADDRESSES] + self._tag + frame[_ADDRESSES:])
        return []
